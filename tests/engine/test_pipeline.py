"""The stages of one trial: reused, computed, repaired; and stopped where there is nothing to defend."""

import json

import pytest
import torch
from tiny_victim import run_trial, tiny_trial

from ubt.artifacts.codec import Artifact
from ubt.artifacts.manifest import MANIFEST_FILE
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import DamagedArtifact, WeakImplant
from ubt.engine.graph import build_pipeline
from ubt.engine.pipeline import PipelineRun
from ubt.engine.workspace import Workspace

STAGES = [
    "pretrain",
    "poison",
    "implant",
    "detect_clean",
    "suspect",
    "overfit",
    "select",
    "attribute",
    "unlearn",
    "evaluate",
]


def key(stage, changes=None):
    return next(node.key for node in build_pipeline(tiny_trial(changes), 0) if node.spec.name == stage)


def spoil(root, stage, payload="tensors"):
    """Change the last bit of a payload."""
    store = ArtifactStore(root)
    manifest = store.manifest(stage, key(stage))
    path = root / "artifacts" / stage / manifest.key / manifest.payloads[payload].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return manifest


def remove(root, *stages):
    store = ArtifactStore(root)
    for stage in stages:
        store.remove(store.manifest(stage, key(stage)))


def computed(record):
    return [stage.stage for stage in record.stages if not stage.reused]


def test_a_first_run_computes_every_stage_in_order(tiny_run):
    assert [stage.stage for stage in tiny_run.record.stages] == STAGES
    assert computed(tiny_run.record) == STAGES
    assert all(stage.complete and stage.spent_seconds > 0 for stage in tiny_run.record.stages)


def test_a_second_run_reuses_every_stage_and_reports_the_same(tiny_run):
    again = run_trial(tiny_run.root)[-1]
    assert again.state == "DONE"
    assert computed(again) == []
    assert all(stage.complete and stage.spent_seconds == 0 for stage in again.stages)
    for field in ("val", "test", "poisoned_val", "poisoned_test", "config"):
        assert getattr(again, field) == getattr(tiny_run.record, field)
    for one, other in zip(again.stages, tiny_run.record.stages, strict=True):
        assert (one.key, one.diagnostics, one.epochs) == (other.key, other.diagnostics, other.epochs)
        assert one.seconds > 0, "as measured when it was computed"


def test_only_what_is_missing_is_computed(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    remove(root, "select", "evaluate")
    record = run_trial(root)[-1]
    assert computed(record) == ["select", "evaluate"]
    assert record.val == tiny_run.record.val


def test_another_setting_shares_what_comes_before_it(tiny_run, tmp_path):
    record = run_trial(tiny_run.copy(tmp_path), {"defense.token_threshold": 0.3})[-1]
    assert computed(record) == ["unlearn", "evaluate"]


@pytest.mark.parametrize(
    ("stage", "payload", "missing"),
    [
        ("pretrain", "model", "detect_clean"),
        ("implant", "model", "overfit"),
        ("detect_clean", "tensors", "suspect"),
        ("overfit", "model", "attribute"),
        ("poison", "tensors", "evaluate"),
        ("unlearn", "model", "evaluate"),
    ],
)
def test_a_damaged_artifact_on_the_way_is_computed_again_and_the_record_says_so(
    tiny_run, tmp_path, stage, payload, missing
):
    root = tiny_run.copy(tmp_path)
    remove(root, missing)
    spoilt = spoil(root, stage, payload)
    record = run_trial(root)[-1]
    assert record.state == "DONE", record.reason
    assert computed(record) == sorted({stage, missing}, key=STAGES.index)
    assert record.val == tiny_run.record.val
    repaired = ArtifactStore(root).manifest(stage, spoilt.key)
    assert repaired.payloads == spoilt.payloads, "the same bits"
    assert list((root / "artifacts" / stage / spoilt.key).glob(f"{MANIFEST_FILE}.damaged-*"))


@pytest.mark.parametrize("damage", ["cut short", "empty", "gone", "unreadable as tensors"])
def test_whatever_happens_to_a_file_between_check_and_use_it_is_computed_again(tiny_run, tmp_path, caplog, damage):
    root = tiny_run.copy(tmp_path)
    remove(root, "suspect")
    store = ArtifactStore(root)
    manifest = store.manifest("detect_clean", key("detect_clean"))
    folder = root / "artifacts" / "detect_clean" / manifest.key
    path = folder / manifest.payloads["tensors"].file
    content = path.read_bytes()
    path.unlink()
    if damage == "unreadable as tensors":  # with the right checksum, but written without tensors
        store.publish(manifest, {"tensors": b"no tensors"})
    elif damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut short" else b"")
    record = run_trial(root)[-1]
    assert record.state == "DONE", record.reason
    assert computed(record) == ["detect_clean", "suspect"]
    assert not [entry for entry in caplog.records if entry.exc_info]


@pytest.mark.parametrize("damage", ["no JSON", "a folder", "of another stage", "rates missing", "rates of nothing"])
def test_a_description_that_was_damaged_is_no_description(tiny_run, tmp_path, caplog, damage):
    root = tiny_run.copy(tmp_path)
    path = root / "artifacts" / "evaluate" / key("evaluate") / MANIFEST_FILE
    tree = json.loads(path.read_text())
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage == "no JSON":
        path.write_text('{"stage": "evaluate", "key"')
    else:
        facts = {"rates missing": {}, "rates of nothing": {"val": {"ca": "high"}, "test": 1}}
        other = {"stage": "overfit"} if damage == "of another stage" else {"facts": facts[damage]}
        path.write_text(json.dumps({**tree, **other}))
    record = run_trial(root)[-1]
    assert record.state == "DONE", record.reason
    assert computed(record) == ["evaluate"]
    assert record.test == tiny_run.record.test
    assert not [entry for entry in caplog.records if entry.exc_info]


def test_damage_that_nobody_reads_is_left_for_who_does(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    spoil(root, "overfit", "model")
    assert computed(run_trial(root)[-1]) == []


def test_a_stage_whose_base_is_gone_is_computed_again(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    remove(root, "implant", "evaluate")  # `unlearn` is stored as the difference from it
    trial = tiny_trial()
    data, model = trial.victim.data, trial.victim.model
    workspace = Workspace(data, model, torch.device("cpu"), ArtifactStore(root), root / "images")
    with pytest.raises(DamagedArtifact, match=r"unlearn .*: the model it differs from, implant/.*, is gone"):
        workspace.load("unlearn", key("unlearn"))
    assert workspace.store.manifest("unlearn", key("unlearn")) is None
    record = run_trial(root)[-1]
    assert computed(record) == ["implant", "unlearn", "evaluate"]
    assert record.test == tiny_run.record.test


def test_an_artifact_that_disappears_on_the_way_is_computed_again(tiny_run, tmp_path, monkeypatch):
    root = tiny_run.copy(tmp_path)
    remove(root, "suspect")
    load = Workspace.load

    def pruned(self, stage, wanted):
        if stage == "detect_clean" and wanted not in self._artifacts and self.store.has(stage, wanted):
            self.store.remove(self.store.manifest(stage, wanted))  # by somebody who cleans up
        return load(self, stage, wanted)

    monkeypatch.setattr(Workspace, "load", pruned)
    record = run_trial(root)[-1]
    assert record.state == "DONE", record.reason
    assert computed(record) == ["detect_clean", "suspect"]


def test_what_a_trial_computed_before_it_met_damage_stays_its_own_work(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    remove(root, "suspect", "attribute")
    spoil(root, "overfit", "model")  # met after `suspect` has been computed
    record = run_trial(root)[-1]
    assert computed(record) == ["suspect", "overfit", "attribute"]
    assert all(stage.spent_seconds > 0 for stage in record.stages if not stage.reused)


def test_damage_that_comes_back_each_time_ends_the_trial(tiny_run, tmp_path, monkeypatch):
    root = tiny_run.copy(tmp_path)
    remove(root, "suspect")
    reads = []

    def damaged(self, manifest, name):
        reads.append(manifest.stage)
        self.set_aside(manifest)
        raise DamagedArtifact(f"{manifest.stage} is damaged")

    monkeypatch.setattr(ArtifactStore, "read", damaged)
    monkeypatch.setattr(Workspace, "remember", lambda self, artifact: artifact)  # so that everything is read back
    record = run_trial(root)[-1]
    assert (record.state, record.fault) == ("FAILED", "DamagedArtifact")
    assert len(reads) == 3, "three attempts, not for ever"


# The gate behind the implant


def test_a_weak_implant_stops_the_trial_before_any_defense_and_says_what_to_change(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    remove(root, "detect_clean", "suspect", "overfit", "select", "attribute", "unlearn", "evaluate")
    records = run_trial(root, {"victim.implant.min_asr": 1.0, "victim.attack.target": "tree"})
    record = records[-1]
    assert (record.state, record.fault) == ("FAILED", "WeakImplant")
    assert [stage.stage for stage in record.stages] == ["pretrain", "poison", "implant"]
    assert not any(ArtifactStore(root).keys(stage) for stage in STAGES[3:])
    for hint in ("victim.implant.epochs", "victim.attack.poison_rate", "victim.implant.min_asr is 1.0", "min_asr: 0"):
        assert hint in record.reason
    assert record.poisoned_val is not None, "how weak it is can be seen"
    assert f"ASR {record.poisoned_val.asr:.3f}" in record.reason
    assert record.poisoned_test is not None


def measured(ca, asr, ca_low=0.2):
    """Return what the implant measured."""
    rates = {"ca": ca, "asr": asr, "ca_low": ca_low, "ca_high": 1, "asr_low": 0, "asr_high": 1}
    return {**rates, "ca_images": 48, "asr_images": 44, "triggered_accuracy": 0.1, "ca_top5": 0.9}


@pytest.mark.parametrize(
    ("rates", "least", "stopped"),
    [
        (measured(0.8, 0.49), 0.5, "did not take"),
        (measured(0.8, 0.5), 0.5, ""),
        (measured(0.1, 1.0, ca_low=0.05), 0.5, "near chance"),
        (measured(0.1, 0.0, ca_low=0.05), 0.0, ""),
    ],
    ids=["weak", "just strong enough", "no model left", "gate open"],
)
def test_the_gate_asks_for_a_backdoor_and_for_a_model_that_is_better_than_chance(bench, rates, least, stopped):
    trial = tiny_trial({"victim.implant.min_asr": least, "defense": {"kind": "none"}})
    pipeline = build_pipeline(trial, 0)[:3]
    artifact = bench.artifact("implant")
    run = PipelineRun(pipeline, trial, bench.workspace, {})
    manifest = artifact.manifest.model_copy(update={"facts": {"val": rates, "test": rates}})
    bench.workspace.remember(Artifact(manifest, {}, artifact.model))
    try:
        if stopped:
            with pytest.raises(WeakImplant, match=stopped):
                list(run.steps())
        else:
            list(run.steps())
    finally:
        bench.workspace.remember(artifact)
    assert run.rates("poisoned", "val").model_dump(mode="json", include=set(rates)) == rates
    assert run.rates("poisoned", "test").split == "test", "also of artifacts of before it was written down"


def test_the_gate_is_also_met_by_a_trial_that_finds_the_implant_in_the_store(tiny_run):
    records = run_trial(tiny_run.root, {"victim.implant.min_asr": 1.0})
    assert records[-1].fault == "WeakImplant"
    assert [stage.reused for stage in records[-1].stages] == [True] * 3
    assert records[-1].poisoned_val == tiny_run.record.poisoned_val


def test_the_rates_of_the_victim_are_known_as_soon_as_it_is(tiny_run):
    for record in tiny_run.records:
        done = [stage.stage for stage in record.stages if stage.complete]
        assert (record.poisoned_val is not None) == ("implant" in done)
        assert (record.poisoned_test is not None) == ("implant" in done)
