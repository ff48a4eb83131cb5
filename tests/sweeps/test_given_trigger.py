"""A trigger that the user gives as a file: in a study, in the keys of stages, in a trial, and where it is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sweeps.cli.app import main
from sweeps.run.preflight import prepare, trials_of, victims_of
from sweeps.study.loading import load_study
from ubt.common.errors import StageFault, UserError
from ubt.engine.context import PrivilegedContext
from ubt.engine.graph import build_pipeline
from ubt.engine.workspace import Workspace
from ubt.stages import poison
from ubt.testing import TINY, run_tiny_trial, tiny_trial

Write = Callable[..., str]


def png(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(attack: dict[str, Any], **more: Any) -> str:
        tree: dict[str, Any] = {**TINY, "victim": {**TINY["victim"], "attack": attack}, "store": "./store", **more}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
        return str(tmp_path / "mine.yaml")

    return write


def keys(attack: dict[str, Any]) -> dict[str, str]:
    return {node.spec.name: node.key for node in build_pipeline(tiny_trial({"victim.attack": attack}), 0)}


def test_the_file_lies_beside_the_study(write: Write, tmp_path: Path) -> None:
    png(tmp_path / "triggers" / "mine.png")
    for written in ("triggers/mine.png", str(tmp_path / "triggers/mine.png")):
        study = load_study(write({"kind": "patch", "image": written}))
        assert study.victim.attack.files() == {"image": tmp_path / "triggers/mine.png"}


def test_those_of_a_search_and_of_a_comparison_lie_there_too(write: Write, tmp_path: Path) -> None:
    a, b = png(tmp_path / "a.png"), png(tmp_path / "b.png", 1)
    grid = {"design": "grid", "space": {"victim.attack.image": ["a.png", "b.png"]}}
    study = load_study(write({"kind": "patch", "image": "a.png"}, search=grid))
    assert [victim.attack.files() for victim in victims_of(trials_of(study))] == [{"image": a}, {"image": b}]
    compared = {
        "design": "comparison",
        "attacks": {"mine": {"kind": "overlay", "image": "b.png"}},
        "search_on": ["mine"],
    }
    defenses = {"none": {"defense": {"kind": "none"}}}
    study = load_study(write({"kind": "badnets"}, search={**compared, "defenses": defenses}))
    assert {"image": b} in [victim.attack.files() for victim in victims_of(trials_of(study))]


def test_the_content_of_the_file_makes_the_key_and_not_its_place(tmp_path: Path) -> None:
    here, there, other = png(tmp_path / "a.png"), png(tmp_path / "x" / "b.png"), png(tmp_path / "c.png", 1)
    found = [keys({"kind": "patch", "image": str(path)}) for path in (here, there, other)]
    assert found[0] == found[1]
    assert found[0]["pretrain"] == found[2]["pretrain"]
    assert found[0]["poison"] != found[2]["poison"]


def test_a_trial_stamps_it_and_another_finds_its_work_without_the_file(tmp_path: Path) -> None:
    attack = {"kind": "patch", "image": str(png(tmp_path / "a.png")), "place": "random", "poison_rate": 0.1}
    first = run_tiny_trial(tmp_path / "store", {"victim.attack": attack, "defense": {"kind": "none"}})
    assert first.state == "DONE", first.reason
    moved = str((tmp_path / "a.png").rename(tmp_path / "b.png"))
    again = run_tiny_trial(
        tmp_path / "store", {"victim.attack": {**attack, "image": moved}, "defense": {"kind": "none"}}
    )
    assert all(stage.reused for stage in again.stages)
    assert [stage.key for stage in again.stages] == [stage.key for stage in first.stages]
    png(tmp_path / "b.png", 1)
    other = run_tiny_trial(
        tmp_path / "store", {"victim.attack": {**attack, "image": moved}, "defense": {"kind": "none"}}
    )
    assert next(stage.stage for stage in other.stages if not stage.reused) == "poison"


def test_a_file_that_is_overwritten_after_planning_is_not_taken_for_the_one_planned(
    workspace: Workspace, tmp_path: Path
) -> None:
    changes = {"victim.attack": {"kind": "overlay", "image": str(png(tmp_path / "a.png"))}}
    (node,) = (node for node in build_pipeline(tiny_trial(changes), 0) if node.spec.name == "poison")
    assert "learned" in poison.run(PrivilegedContext(node, workspace, {})).tensors
    png(tmp_path / "a.png", 1)
    with pytest.raises(StageFault, match=r"a\.png is another file than when this was planned"):
        poison.run(PrivilegedContext(node, workspace, {}))


def test_a_missing_or_an_unreadable_image_is_told_when_it_is_planned(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no image")
    for image, told in (("none.png", "there is no such file"), ("text.png", "cannot be read")):
        path = write({"kind": "overlay", "image": image})
        monkeypatch.setattr(sys, "argv", ["ubt", "plan", path])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        assert "victim.attack.image" in shown
        assert told in shown
        assert str(tmp_path / image) in shown
        assert "Traceback" not in shown


def test_a_tensor_is_looked_into_before_a_sweep_starts_and_loads_no_torch_while_it_is_planned(
    write: Write, tmp_path: Path
) -> None:
    torch.save({"noise": torch.zeros(3, 8, 8)}, tmp_path / "noise.pt")
    path = write({"kind": "overlay", "image": "noise.pt"})
    code = f"import sys\nfrom sweeps.cli.app import app\napp(['plan', {path!r}], standalone_mode=False)\n"
    code += "print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.endswith("False\n")
    with pytest.raises(UserError, match=r"victim\.attack\.image: cannot be read: it holds a dict"):
        prepare(load_study(path), str(tmp_path / "store"))


def test_a_comparison_of_published_attacks_is_planned(write: Write, tmp_path: Path) -> None:
    png(tmp_path / "kitty.png")
    attacks = {
        "cleanclip_badnets": {"kind": "cleanclip_badnets", "poison_count": 20},
        "par_text": {"kind": "par_text"},
        "kitty": {"kind": "backdoorbench_blended", "image": "kitty.png"},
    }
    defenses = {"none": {"defense": {"kind": "none"}}}
    compared = {"design": "comparison", "attacks": attacks, "search_on": ["kitty"], "defenses": defenses}
    study = load_study(write({"kind": "badnets"}, search=compared))
    found = {victim.attack.kind for victim in victims_of(trials_of(study))}
    assert found >= {attack["kind"] for attack in attacks.values()}


def test_what_is_drawn_anew_is_the_same_in_every_trial(tmp_path: Path) -> None:
    changes = {"victim.attack": {"kind": "cleanclip_badnets", "poison_rate": 0.1}, "defense": {"kind": "none"}}
    records = [run_tiny_trial(tmp_path / store, changes) for store in ("one", "other")]
    assert [record.state for record in records] == ["DONE", "DONE"]
    assert [stage.diagnostics for stage in records[0].stages] == [stage.diagnostics for stage in records[1].stages]
    assert records[0].stages[-1].key == records[1].stages[-1].key
