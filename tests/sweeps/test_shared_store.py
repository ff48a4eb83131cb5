"""Two studies at once over one store: they want the same stages, and each is computed by one of them.

They do meet: one comes to its first stage, which the store then lacks, and computes it until the other wants it too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ubt.artifacts.store import ArtifactStore
from ubt.artifacts.upkeep.housekeeping import damaged
from ubt.trials.record import State, TrialRecord, read_records

NAMES = ("one", "other")
PATIENCE_SECONDS = 240

MEETING = """
import sys, time
from pathlib import Path
from sweeps.cli.app import main
from ubt.common.errors import Waits
from ubt.stages import victim

waits, patience = Path(sys.argv[1]), float(sys.argv[2])
sys.argv = ["ubt", *sys.argv[3:]]
pretrain, begun = victim.pretrain, Waits.__init__

def note(fault, *what):
    waits.touch()
    begun(fault, *what)

def meet(context):
    deadline = time.monotonic() + patience
    while not waits.exists():
        assert time.monotonic() < deadline, "the other study does not come"
        time.sleep(0.01)
    return pretrain(context)

Waits.__init__, victim.pretrain = note, meet
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
        for name in NAMES:
            meeting = [sys.executable, "-c", MEETING, str(folder / "one-waits"), str(PATIENCE_SECONDS)]
            running.append(subprocess.Popen([*meeting, *given, "--name", name]))
        assert [process.wait(timeout=PATIENCE_SECONDS) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return folder


def records(swept: Path, name: str) -> list[TrialRecord]:
    return read_records(swept / name / "records")


@pytest.mark.slow
def test_no_stage_is_computed_by_both(swept: Path) -> None:
    one, other = ({s.key for r in records(swept, name) for s in r.stages if not s.reused} for name in NAMES)
    assert one | other == {manifest.key for manifest in ArtifactStore(swept / "store").manifests()}
    assert one & other == set()


@pytest.mark.slow
def test_both_are_done_with_the_same_numbers(swept: Path) -> None:
    one, other = (records(swept, name) for name in NAMES)
    assert {record.state for record in (*one, *other)} == {State.DONE}
    assert [(r.config, r.val, r.test) for r in one] == [(r.config, r.val, r.test) for r in other]
    assert [[stage.key for stage in r.stages] for r in one] == [[stage.key for stage in r.stages] for r in other]


@pytest.mark.slow
def test_waiting_is_no_attempt(swept: Path) -> None:
    assert all(len(record.attempts) == 1 for name in NAMES for record in records(swept, name))


@pytest.mark.slow
def test_the_store_is_whole_and_nothing_is_held(swept: Path) -> None:
    store = ArtifactStore(str(swept / "store"))
    metas = list(store.manifests())
    assert metas
    assert damaged(store, metas) == []
    files = store.lease_files()
    assert files
    assert (files.slots(), files.processes()) == ([], {})
