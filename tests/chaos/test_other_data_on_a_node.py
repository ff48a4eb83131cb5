"""One of three hosts has other files under the study's paths: no trial is wrong, and it is named with the row."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hosts import cluster, hosts, why_not
from PIL import Image
from processes import end_all, environment, kill, of_role
from scene import STUDY, UBT

from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import TrialRecord, read_record, read_records

TRIALS = 6
BAD = "host-3"
STRONG = {"poison_rate": 0.25, "patch_fraction": 0.3}
SWEEP_SECONDS = 500.0


def write_data(folder: Path) -> None:
    """Write 64 captioned pictures and 32 labelled ones of four colours, a trigger, and classes."""
    colours = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "grey": (128, 128, 128)}
    names = list(colours)
    (folder / "images").mkdir(parents=True)
    for number in range(96):
        noise = np.random.default_rng(number).normal(0, 25, (32, 32, 3))
        pixels = np.clip(np.array(colours[names[number % 4]]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
    pairs = [f"images/{number}.png,a photo of {names[number % 4]} number {number}" for number in range(64)]
    labels = [f"images/{number}.png,{names[number % 4]}" for number in range(64, 96)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *pairs]) + "\n")
    (folder / "labels.csv").write_text("\n".join(["image,label", *labels]) + "\n")
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "trigger.png")


def study(name: str, data: Path, store: Path, tracking: Path) -> dict[str, Any]:
    files = {name: str(data / f"{name}.csv") for name in ("pairs", "labels")}
    victim = {
        **STUDY["victim"],
        "data": {"kind": "csv", **files, "pretrain": files["pairs"], "classes": str(data / "classes.txt")},
        "pretrain": {"epochs": 12, "batch_size": 16, "warmup_steps": 10},
        "attack": {"kind": "patch", "image": str(data / "trigger.png"), "target": "red", **STRONG},
        "implant": {"epochs": 15, "batch_size": 16, "learning_rate": 1e-3, "min_asr": 0},
    }
    search = {"design": "grid", "space": {"defense.token_threshold": [0.05, 0.1, 0.2]}}
    return {
        **STUDY,
        "name": name,
        "victim": victim,
        "search": search,
        "store": str(store),
        "tracking": {"experiment": name, "uri": f"sqlite:///{tracking}"},
        "resources": {},
        "objectives": {"epochs": "last"},  # its trials are counted
    }


def another_picture(data: Path) -> str:
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(data / "images/15.png")
    return "/pairs.csv: row 17, {data}/images/15.png: the study has "


def another_caption(data: Path) -> str:
    path = data / "pairs.csv"
    path.write_text(path.read_text().replace("number 15", "of nothing"))
    return "/pairs.csv: row 17, {data}/images/15.png: the study has 'a photo of grey number 15', this node has "


def another_trigger(data: Path) -> str:
    content = (data / "trigger.png").read_bytes()
    (data / "trigger.png").write_bytes(content + b"!")
    return f"victim.attack.image, {{data}}/trigger.png: the study has {len(content)} bytes, this node has "


def a_missing_picture(data: Path) -> str:
    (data / "images/70.png").unlink()
    return "/labels.csv: row 8, {data}/images/70.png: the study has "


SPOILT = [another_picture, another_caption, another_trigger, a_missing_picture]


@dataclass
class Measured:
    """What came of a study on three hosts, beside the same study where nothing differed."""

    records: list[TrialRecord]
    output: str
    seconds: float

    @property
    def nodes(self) -> set[str]:
        """The nodes that the results come from."""
        return {node for record in self.records for node in [record.attempts[-1].node, *computed(record)]}


def computed(record: TrialRecord) -> list[str]:
    return [stage.node for stage in record.stages]


@pytest.mark.clusters
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_no_trial_is_wrong_and_the_host_is_named_with_the_first_row_that_differs(tmp_path: Path) -> None:
    before_the_first_trial(tmp_path, another_picture)


def before_the_first_trial(folder: Path, spoil: Callable[[Path], str]) -> Measured:
    """Let host 3 have other files from the start: it computes nothing."""
    data, other = folder / "data", folder / "other"
    write_data(data)
    shutil.copytree(data, other)
    expected = spoil(other).format(data=data)
    measured = compared(folder, {2: {data: other}})
    assert BAD in measured.output
    assert expected in " ".join(measured.output.split()), measured.output
    assert all(node.startswith(("host-1 (10.88.", "host-2 (10.88.")) for node in measured.nodes), measured.nodes
    return measured


def while_trials_run(folder: Path, spoil: Callable[[Path], str]) -> Measured:
    """Change the files of hosts 2 and 3 while trials run, and kill all workers, so that others start there."""
    data = folder / "data"
    write_data(data)
    copies = {number: Path(shutil.copytree(data, folder / f"other-{number}")) for number in (1, 2)}
    said: set[str] = set()

    def disturb(mark: str) -> bool:
        records = [read_record(path) for path in (folder / "runs/disturbed/records").glob("t*.json")]
        running = {record.attempts[-1].node for record in records if record.attempts and not record.state.ended}
        if not any(node.startswith("host-") for node in running):
            return False
        said.update(spoil(copy).format(data=data) for copy in copies.values())
        kill(of_role(mark, "worker"))
        return True

    measured = compared(folder, {number: {data: copy} for number, copy in copies.items()}, disturb)
    ended = [attempt for record in measured.records for attempt in record.attempts[:-1]]
    unfit = [attempt for attempt in ended if attempt.ended_by.startswith("UnfitNode")]
    assert unfit, measured.output
    assert {attempt.node.split()[0] for attempt in unfit} <= {"host-2", "host-3"}
    assert all(any(words in attempt.ended_by for words in said) for attempt in unfit)
    return measured


def compared(
    folder: Path, other: Mapping[int, Mapping[Path, Path]], disturb: Callable[[str], bool] = lambda mark: True
) -> Measured:
    """Run the study undisturbed, and on three hosts; `disturb` is called until it says that it has done so."""
    mark = f"other-data-{folder.name}"
    data = folder / "data"
    for name in ("undisturbed", "disturbed"):
        written = study(name, data, folder / f"store-{name}", folder / f"{name}.db")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    words = ["--out", str(folder / "runs"), "--address"]
    undisturbed = subprocess.run(
        [*UBT, "sweep", str(folder / "undisturbed.yaml"), *words, "inline"],
        capture_output=True,
        text=True,
        check=False,
        env={**environment(mark), "UBT_CACHE": str(folder / "cache")},
    )
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    try:
        with (
            hosts(folder / "hosts", 3, other, environment(mark)) as made,
            (folder / "log").open("w") as log,
        ):
            address, began, done = cluster(made), time.monotonic(), False
            sweep = made[0].start(
                *UBT, "sweep", str(folder / "disturbed.yaml"), *words, address, stdout=log, stderr=log
            )
            while sweep.poll() is None and time.monotonic() - began < SWEEP_SECONDS:
                done = done or disturb(mark)
                time.sleep(0.1)
            seconds = time.monotonic() - began
    finally:
        end_all(mark)
    output = (folder / "log").read_text()
    assert (sweep.returncode, done) == (0, True), output
    records = {name: read_records(folder / "runs" / name / "records") for name in ("undisturbed", "disturbed")}
    found = records["disturbed"]
    assert [record.state for record in found] == ["DONE"] * TRIALS
    assert [result(record) for record in found] == [result(record) for record in records["undisturbed"]]
    assert chosen(folder, "disturbed") == chosen(folder, "undisturbed")
    assert payloads(folder / "store-disturbed") == payloads(folder / "store-undisturbed")
    return Measured(found, output, seconds)


def result(record: TrialRecord) -> tuple[object, ...]:
    return record.trial, record.val, record.test, [stage.key for stage in record.stages]


def payloads(store: Path) -> dict[str, list[str]]:
    return {
        each.key: sorted(one.checksum for one in each.payloads.values()) for each in ArtifactStore(store).manifests()
    }


def chosen(folder: Path, name: str) -> object:
    summary = json.loads((folder / "runs" / name / "report" / "summary.json").read_text())
    return summary["chosen"]["trial"], summary["chosen"]["test"]


def measure() -> None:
    """Print what docs/reliability.md says of every kind."""
    cases = [(while_trials_run, another_picture), *((before_the_first_trial, kind) for kind in SPOILT)]
    for place, kind in cases:
        measured = place(Path(tempfile.mkdtemp(prefix="ubt-other-data-")), kind)
        by = Counter(node.split()[0] for record in measured.records for node in [record.attempts[-1].node])
        print(f"{place.__name__}, {kind.__name__}: {TRIALS} DONE, {dict(by)}, {measured.seconds:.0f} s", flush=True)
        print("\n".join(line for line in measured.output.splitlines() if "host-" in line), flush=True)


if __name__ == "__main__":
    measure()
