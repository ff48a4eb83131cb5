"""One of three hosts has other files under the study's paths: no trial is wrong, and it is named with the row."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hosts import cluster, hosts, why_not
from PIL import Image
from processes import end_all, environment
from scene import STUDY, UBT

from ubt.trials.record import TrialRecord, read_records

TRIALS = 6
BAD = "host-3"


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
        "attack": {"kind": "patch", "image": str(data / "trigger.png"), "target": "red", "poison_rate": 0.1},
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


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_no_trial_is_wrong_and_the_host_is_named_with_the_first_row_that_differs(tmp_path: Path) -> None:
    run(tmp_path, another_picture)


def run(folder: Path, spoil: Callable[[Path], str]) -> dict[str, Any]:
    """Run the study where host 3 has other files, and where nothing differs; compare them; return numbers."""
    mark = f"other-data-{folder.name}"
    data, other = folder / "data", folder / "other"
    write_data(data)
    shutil.copytree(data, other)
    expected = spoil(other).format(data=data)
    for name in ("undisturbed", "disturbed"):
        written = study(name, data, folder / f"store-{name}", folder / f"{name}.db")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    words = ["--out", str(folder / "runs"), "--address"]
    cache = {"UBT_CACHE": str(folder / "cache")}
    undisturbed = subprocess.run(
        [*UBT, "sweep", str(folder / "undisturbed.yaml"), *words, "inline"],
        capture_output=True,
        text=True,
        check=False,
        env={**environment(mark), **cache},
    )
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    try:
        with hosts(folder / "hosts", 3, {2: {data: other}}, environment(mark)) as made:
            address = cluster(made)
            output = made[0].run(*UBT, "sweep", str(folder / "disturbed.yaml"), *words, address, seconds=500)
    finally:
        end_all(mark)
    assert BAD in output
    assert expected in " ".join(output.split()), output
    records = {name: read_records(folder / "runs" / name / "records") for name in ("undisturbed", "disturbed")}
    found = records["disturbed"]
    assert [record.state for record in found] == ["DONE"] * TRIALS
    assert [rates(record) for record in found] == [rates(record) for record in records["undisturbed"]]
    nodes = {stage.node for record in found for stage in record.stages} | {record.attempts[-1].node for record in found}
    assert all(node.startswith(("host-1 (10.88.", "host-2 (10.88.")) for node in nodes), nodes
    assert chosen(folder, "disturbed") == chosen(folder, "undisturbed")
    return {"nodes": sorted(nodes), "said": expected, "output": output}


def rates(record: TrialRecord) -> tuple[object, ...]:
    keys = [stage.key for stage in record.stages]
    return record.trial, record.val, record.test, keys


def chosen(folder: Path, name: str) -> object:
    summary = json.loads((folder / "runs" / name / "report" / "summary.json").read_text())
    return {key: value for key, value in summary["chosen"].items() if key not in {"seconds", "nodes"}}


if __name__ == "__main__":  # pragma: no cover — every kind, for docs/reliability.md
    import tempfile
    import time

    for kind in SPOILT:
        began = time.monotonic()
        measured = run(Path(tempfile.mkdtemp(prefix="ubt-other-data-")), kind)
        print(
            f"{kind.__name__}: {TRIALS} DONE on {measured['nodes']}, {time.monotonic() - began:.0f} s", measured["said"]
        )
