"""`ubt export`: what is refused or missing, and that a bad disk leaves nothing behind."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from exported_runs import run_folder
from tiny_victim import REPORT, run_trial

from sweeps.cli.app import main
from sweeps.run.export import export
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import UserError
from ubt.trials.labels import ComparisonCell, TrialLabel
from ubt.trials.record import State, TrialRecord

Refused = Callable[..., str]


@pytest.fixture
def record(tiny_run: Any) -> TrialRecord:
    return tiny_run.record


@pytest.fixture
def run(tiny_run: Any, tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run", tiny_run.root, tiny_run.record)


@pytest.fixture
def refused(run: Path, tmp_path: Path) -> Refused:
    """Return what is said of an export that leaves no file."""

    def of(trial: str | None = None, out: str = "here/model.safetensors", folder: Path = run, **options: Any) -> str:
        with pytest.raises(UserError) as caught:
            export(folder, tmp_path / out, trial, **options)
        assert len(caught.value.problems) == 1
        assert not (tmp_path / "here").exists()
        return str(caught.value)

    return of


def without(record: TrialRecord, store: Path, *stages: str) -> None:
    """Prune the artifacts of some stages."""
    for stage in record.stages:
        if stage.stage in stages:
            manifest = ArtifactStore(store).manifest(stage.stage, stage.key)
            ArtifactStore(store).remove(manifest)


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        ("t9", "has none of that name, but tiny-0 (given: 't9')"),
        ("tiny-0@", "what follows @ is no epoch"),
        ("tiny-0@0", "they count from 1"),
        ("tiny-0@²", "is no epoch"),
        ("tiny-0@3", "stage `unlearn` of this trial has fewer epochs: 2"),
    ],
)
def test_a_trial_or_epoch_that_is_not_there(refused: Refused, trial: str, told: str) -> None:
    assert told in refused(trial)


def test_stages_whose_epochs_are_not_kept(refused: Refused) -> None:
    assert "of stage `implant`, which makes the poisoned model, only the end is kept" in refused(
        "tiny-0@1", which="poisoned"
    )


def test_nothing_is_chosen(refused: Refused, record: TrialRecord, tiny_run: Any, tmp_path: Path) -> None:
    worse = record.model_copy(update={"val": record.val.model_copy(update={"ca": 0.0})})
    folder = run_folder(tmp_path / "none", tiny_run.root, worse, ca_floor=0.0)
    assert "chose nothing: no trial has what the rule `lowest_asr` asks for" in refused(folder=folder)
    cell = ComparisonCell(phase="table", defense="ubt", attack="badnets")
    compared = record.model_copy(update={"label": TrialLabel(cell=cell)})
    folder = run_folder(tmp_path / "compared", tiny_run.root, compared)
    assert "name a trial of tiny-0" in refused(folder=folder)


def test_a_trial_that_failed_has_only_the_models_that_it_came_to(
    refused: Refused, record: TrialRecord, tiny_run: Any, tmp_path: Path
) -> None:
    upto = [stage.stage for stage in record.stages].index("implant") + 1
    failed = record.model_copy(
        update={"stages": record.stages[:upto], "state": State.FAILED, "reason": "no memory", "val": None}
    )
    folder = run_folder(tmp_path / "failed", tiny_run.root, failed)
    told = refused("tiny-0", folder=folder)
    assert "did not get as far as its defended model, of stage `unlearn`: it is FAILED (no memory)" in told
    assert export(folder, tmp_path / "poisoned.pt", "tiny-0", which="poisoned").origin.stage == "implant"


def test_a_pruned_model_is_computed_again_to_the_same_bytes(
    refused: Refused, run: Path, record: TrialRecord, tiny_run: Any, tmp_path: Path
) -> None:
    store = tiny_run.copy(tmp_path)
    without(record, store, "unlearn", "attribute")
    folder = run_folder(tmp_path / "pruned", store, record)
    told = refused(folder=folder)
    assert f"the defended model of tiny-0: is not in the store {store}" in told
    assert "--recompute computes it again" in told
    shown: list[Any] = []
    again = export(folder, tmp_path / "again.safetensors", recompute=True, show=shown.append)
    assert {stage.stage for stage in shown if not stage.reused} == {"attribute", "unlearn"}
    first = export(run, tmp_path / "first.safetensors")
    assert again.sha256 == first.sha256
    assert (again.origin.computed_again, first.origin.computed_again) == (True, False)


def test_a_model_whose_base_was_pruned_is_told_and_computed_again(
    refused: Refused, run: Path, record: TrialRecord, tiny_run: Any, tmp_path: Path
) -> None:
    store = tiny_run.copy(tmp_path)
    without(record, store, "implant")
    folder = run_folder(tmp_path / "pruned", store, record)
    assert "the model it differs from, implant/" in refused(folder=folder)
    again = export(folder, tmp_path / "again.pt", recompute=True)
    assert again.sha256 == export(run, tmp_path / "first.pt").sha256


def test_an_epoch_is_exported_where_it_is_kept_and_else_computed(
    refused: Refused, record: TrialRecord, tiny_run: Any, tmp_path: Path
) -> None:
    store = tiny_run.copy(tmp_path)
    folder = run_folder(tmp_path / "epochs", store, record)
    told = refused("tiny-0@1", folder=folder)
    assert (
        "an epoch's model is kept where other trials of the study end at it; of this trial there are those of 2" in told
    )
    first = export(folder, tmp_path / "first.pt", "tiny-0@1", recompute=True)
    assert first.origin.epoch == 1
    assert first.origin.val == record.epochs[0][1].val
    assert first.origin.test is None
    assert export(folder, tmp_path / "kept.pt", "tiny-0@1").sha256 == first.sha256
    last = export(folder, tmp_path / "last.pt", "tiny-0@2")
    assert last.sha256 == export(folder, tmp_path / "chosen.pt").sha256 != first.sha256
    assert last.origin.test == record.test


def test_a_model_that_would_be_another_one_is_not_computed(
    refused: Refused, record: TrialRecord, tiny_run: Any, tmp_path: Path
) -> None:
    stages = [
        stage.model_copy(update={"key": "0" * 32}) if stage.stage == "unlearn" else stage for stage in record.stages
    ]
    folder = run_folder(tmp_path / "other", tiny_run.root, record.model_copy(update={"stages": tuple(stages)}))
    assert "would be another one if it was computed now" in refused(folder=folder, recompute=True)


def test_a_model_of_a_checkpoint_is_computed_again_by_the_study_s_gates_and_outlives_its_file(
    tiny_run: Any, tmp_path: Path
) -> None:
    given = run_folder(tmp_path / "first", tiny_run.root, tiny_run.record)
    checkpoint = tmp_path / "clean.pt"
    export(given, checkpoint, which="clean")
    note = checkpoint.with_suffix(".json")
    note.write_text(note.read_text().replace('"activation": "gelu"', '"activation": "quickgelu"'))
    changes = {"victim.model": {"name": "tiny-rn", "checkpoint": str(checkpoint)}, "defense": {"kind": "none"}}
    *_, record = run_trial(tmp_path / "store", changes, gates=REPORT)
    assert record.state == "DONE", record.reason
    without(record, tmp_path / "store", "implant")
    strict = run_folder(tmp_path / "strict", tmp_path / "store", record)
    with pytest.raises(UserError, match="hardly better than chance"):
        export(strict, tmp_path / "it.pt", recompute=True)
    lenient = run_folder(tmp_path / "lenient", tmp_path / "store", record, gates=REPORT.as_json())
    assert export(lenient, tmp_path / "it.pt", recompute=True).origin.computed_again
    checkpoint.unlink()
    note.unlink()
    folder = run_folder(tmp_path / "second", tmp_path / "store", record)
    again = export(folder, tmp_path / "again", which="clean", format="open-clip")
    assert again.activation == "quickgelu"
    assert record.clean_val is not None
    assert (again.origin.val, again.origin.test) == (record.clean_val, None)


@pytest.mark.parametrize(
    ("out", "form", "told"),
    [
        ("here/model", None, "does not say what to write"),
        ("here/model.bin", None, "does not say what to write"),
        ("here/model.pt", "safetensors", "let it end with .safetensors"),
        ("here/model.safetensors", "pt", "let it end with .pt or .pth"),
    ],
)
def test_a_name_that_open_clip_would_take_for_another_kind(refused: Refused, out: str, form: Any, told: str) -> None:
    assert told in refused(out=out, format=form)


@pytest.mark.parametrize("there", ["model.pt", "model.json"])
def test_a_file_is_replaced_only_if_asked(run: Path, tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export(run, tmp_path / "model.pt")
    assert (tmp_path / there).read_text() == "mine"
    note = export(run, tmp_path / "model.pt", force=True)
    assert (tmp_path / "model.json").stat().st_mode == (tmp_path / "model.pt").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"run", *note.files}


def test_a_folder_is_replaced_only_if_asked_and_only_if_all_of_it_was_exported(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    first = export(run, out, format="open-clip")
    with pytest.raises(UserError, match="is not empty"):
        export(run, out, format="open-clip")
    assert export(run, out, format="open-clip", which="clean", force=True).sha256 != first.sha256
    (out / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match=r"holds files that no export wrote: thesis\.txt"):
        export(run, out, format="open-clip", force=True)
    assert (out / "thesis.txt").read_text() == "all of it"
    with pytest.raises(UserError, match="this format is a folder"):
        export(run, out / "thesis.txt", format="open-clip", force=True)


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Let the kernel refuse to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("out", "form"), [("m.safetensors", None), ("m.pt", None), ("m", "open-clip")])
def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(
    run: Path, tmp_path: Path, out: str, form: Any
) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    export(run, tmp_path / "out" / out, format=form, which="clean")
    before = content()
    with files_of_at_most(1 << 20), pytest.raises(UserError, match="--out: cannot be written") as caught:
        export(run, tmp_path / "out" / out, format=form, force=True)
    assert len(caught.value.problems) == 1
    assert content() == before


def test_a_place_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--out: cannot be written" in refused(out="file/model.pt")


def test_no_password_of_a_record_is_passed_on(record: TrialRecord, tiny_run: Any, tmp_path: Path) -> None:
    told = record.model_copy(update={"reason": "tried again: s3://ann:secret@host/store did not answer"})
    folder = run_folder(tmp_path / "secret", tiny_run.root, told)
    export(folder, tmp_path / "model.pt")
    assert "secret" not in (tmp_path / "model.json").read_text()
    assert "host/store" in (tmp_path / "model.json").read_text()


def test_the_command_says_what_it_wrote_and_what_is_wrong(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ubt", "export", str(run), "--out", "model", "--format", "open-clip"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = capsys.readouterr().out
    assert "model  the defended model of tiny-0: tiny-rn with GELU, 6.3 million parameters" in told
    assert 'open_clip.create_model_and_transforms("local-dir:model")' in told
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--out: is not empty" in capsys.readouterr().err
