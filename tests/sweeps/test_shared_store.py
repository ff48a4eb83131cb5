"""Two studies at once over one store: each has a gate of its own, so they may meet at a stage, and must agree.

Here they do meet: each comes to its first stage, which the store then lacks, and waits there for the other.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.cli.store import damaged
from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import State, TrialRecord, read_records

NAMES = ("one", "other")
PATIENCE_SECONDS = 240

MEETING = """
import sys, time
from pathlib import Path
from sweeps.cli.app import main
from ubt.stages import victim

mine, other, patience = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
sys.argv = ["ubt", *sys.argv[4:]]
pretrain = victim.pretrain

def meet(context):
    mine.touch()
    deadline = time.monotonic() + patience
    while not other.exists():
        assert time.monotonic() < deadline, "the other study does not come"
        time.sleep(0.01)
    return pretrain(context)

victim.pretrain = meet
main()
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes have swept the same study at the same time."""
    folder = tmp_path_factory.mktemp("shared")
    given = ["sweep", "smoke", "--address", "inline", "--out", str(folder), "--set", f"store={folder / 'store'}"]
    given += ["--set", "search.n_trials=2", "--set", "tracking.enabled=false"]
    running = []
    try:
        for name, other in (NAMES, NAMES[::-1]):
            meeting = [str(folder / f"{name}-is-there"), str(folder / f"{other}-is-there"), str(PATIENCE_SECONDS)]
            running.append(subprocess.Popen([sys.executable, "-c", MEETING, *meeting, *given, "--name", name]))
        assert [process.wait(timeout=PATIENCE_SECONDS) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return folder


def records(swept: Path, name: str) -> list[TrialRecord]:
    return read_records(swept / name / "records")


@pytest.mark.slow
def test_both_have_computed_the_stage_at_which_they_met(swept: Path) -> None:
    firsts = [records(swept, name)[0].stages[0] for name in NAMES]
    assert [(stage.stage, stage.reused) for stage in firsts] == [("pretrain", False)] * 2


@pytest.mark.slow
def test_both_are_done_with_the_same_numbers(swept: Path) -> None:
    one, other = (records(swept, name) for name in NAMES)
    assert {record.state for record in (*one, *other)} == {State.DONE}
    assert [(r.config, r.val, r.test) for r in one] == [(r.config, r.val, r.test) for r in other]
    assert [[stage.key for stage in r.stages] for r in one] == [[stage.key for stage in r.stages] for r in other]


@pytest.mark.slow
def test_the_store_is_whole(swept: Path) -> None:
    store = ArtifactStore(str(swept / "store"))
    metas = list(store.manifests())
    assert metas
    assert damaged(store, metas) == []
