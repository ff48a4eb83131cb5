"""`ubt export`: a model of a run as files, loaded by open_clip in another process, and what cannot be exported."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_runs import run_folder

from sweeps.run.export import export
from ubt.artifacts.exporting.model_note import ModelNote
from ubt.attacks import Rows
from ubt.common.model_choice import Format, Which
from ubt.engine.poisoning import PoisonManifest
from ubt.trials.record import TrialRecord

NAMES = {Format.SAFETENSORS: "model.safetensors", Format.PT: "model.pt", Format.OPEN_CLIP: "model"}
CASES = [(which, form) for which in Which for form in Format]


@pytest.fixture(scope="module")
def run(tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("runs") / "tiny", tiny_run.root, tiny_run.record)


@dataclass(frozen=True)
class Elsewhere:
    """What another process made of every model in every format."""

    notes: dict[tuple[Which, Format], ModelNote]
    files: dict[tuple[Which, Format], Path]
    arrays: dict[str, np.ndarray]

    def of(self, which: Which, form: Format, kind: str) -> np.ndarray:
        return self.arrays[f"{CASES.index((which, form))}_{kind}"]


def inputs(workspace: Any, record: TrialRecord) -> dict[str, Any]:
    """Return the test images, clean and triggered, and the prompts, as files could hold them."""
    poison = next(stage for stage in record.stages if stage.stage == "poison")
    data, attack = workspace.data, PoisonManifest.of(workspace.load("poison", poison.key)).attack
    others = np.flatnonzero(data.test.labels != list(data.classes).index(attack.target))
    triggered = attack.stamp(data.test.images[others], Rows("test", others))
    prompts = [template.format(name) for name in data.classes for template in data.templates]
    return {"prompts": prompts, "clean": data.test.images, "triggered": triggered}


@pytest.fixture(scope="module")
def elsewhere(run: Path, workspace: Any, tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    folder, notes, files, written = tmp_path_factory.mktemp("exported"), {}, {}, []
    for which, form in CASES:
        out = files[which, form] = (
            folder / which / NAMES[form] if form is Format.OPEN_CLIP else folder / which / form / NAMES[form]
        )
        notes[which, form] = export(run, out, which=which, format=form)
        written.append(out / "ubt_export.json" if form is Format.OPEN_CLIP else out.with_suffix(".json"))
    np.savez(folder / "inputs.npz", **inputs(workspace, tiny_run.record))
    script = Path(__file__).with_name("loads_exported.py")
    words = [sys.executable, script, folder / "inputs.npz", folder / "output.npz", *written]
    subprocess.run(list(map(str, words)), check=True, cwd=folder, capture_output=True, env={"PATH": ""})
    return Elsewhere(notes, files, dict(np.load(folder / "output.npz")))


@pytest.mark.parametrize(("which", "form"), CASES)
def test_open_clip_in_another_process_computes_the_same_embeddings_to_the_bit(
    elsewhere: Elsewhere, bench: Any, which: Which, form: Format
) -> None:
    from ubt.models.clip import embed_images, embed_tokens

    stage = {"defended": "unlearn", "poisoned": "implant", "clean": "pretrain"}[which]
    clip = bench.clip(bench.artifact(stage).weights)
    given = inputs(bench.workspace, elsewhere.notes[which, form].origin.record)
    for kind in ("clean", "triggered"):
        np.testing.assert_array_equal(elsewhere.of(which, form, kind), embed_images(clip, given[kind]).numpy())
    texts = embed_tokens(clip, clip.tokenize(given["prompts"]))
    np.testing.assert_array_equal(elsewhere.of(which, form, "texts"), texts.numpy())


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("which", [Which.DEFENDED, Which.POISONED])
def test_open_clip_in_another_process_finds_the_rates_of_the_record(
    elsewhere: Elsewhere, workspace: Any, tiny_run: Any, which: Which, form: Format
) -> None:
    recorded = tiny_run.record.test if which is Which.DEFENDED else tiny_run.record.poisoned_test
    data, texts = workspace.data, elsewhere.of(which, form, "texts")
    weights = texts.reshape(len(data.classes), len(data.templates), -1).mean(axis=1)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    clean, triggered = (elsewhere.of(which, form, kind) @ weights.T for kind in ("clean", "triggered"))
    assert (clean.argmax(axis=1) == data.test.labels).mean() == recorded.ca
    target = list(data.classes).index(tiny_run.record.config["victim"]["attack"]["target"])
    assert (triggered.argmax(axis=1) == target).mean() == recorded.asr
    assert elsewhere.notes[which, form].origin.test == recorded


@pytest.mark.parametrize(("which", "form"), CASES)
def test_the_note_is_what_was_written(elsewhere: Elsewhere, which: Which, form: Format) -> None:
    note, out = elsewhere.notes[which, form], elsewhere.files[which, form]
    folder = out if form is Format.OPEN_CLIP else out.parent
    written = {path.name for path in folder.iterdir() if not path.name.startswith("exported-")}
    assert written == set(note.files)
    assert ModelNote.model_validate_json((folder / note.files[-1]).read_bytes()) == note
    assert hashlib.sha256((folder / note.weights).read_bytes()).hexdigest() == note.sha256
    assert (note.name, note.activation, note.preprocessing.image_size_px) == ("tiny-rn", "gelu", 32)
    assert (note.origin.which, note.origin.trial, note.origin.seed) == (which, "tiny-0", 0)
    assert note.origin.key in {stage.key for stage in note.origin.record.stages}
    assert bool(note.load) == (form is Format.OPEN_CLIP), "open_clip knows no tiny-rn by its name"
