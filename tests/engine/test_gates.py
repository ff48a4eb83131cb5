"""Sanity gates between stages: what they ask, what becomes of a trial, and what its record says."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file
from tiny_victim import REPORT, run_trial, tiny_trial

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.statistics import wilson_interval
from ubt.engine.gates import Judged, clean_accuracy, detector_auroc, implant, judge, overfit_auroc
from ubt.engine.graph import build_pipeline
from ubt.stages import overfit
from ubt.trials.gates import GateOutcome, Gates

CHECKPOINT, POISONED = "victim.model.checkpoint", "victim.implant.checkpoint"
NO_DEFENSE = {"defense": {"kind": "none"}}


def manifest(stage, facts=None, diagnostics=None):
    plain = {"stage": stage, "key": "a", "version": 1, "seed": 0, "settings": {}, "inputs": {}}
    return ArtifactManifest.model_validate({**plain, "facts": facts or {}, "diagnostics": diagnostics or {}})


def judged(stage, changes=None, gates=None, classes=10, **known):
    return Judged(manifest(stage, **known), tiny_trial(changes), Gates.model_validate(gates or {}), classes)


def measured(correct, images, **fields):
    low, high = wilson_interval(correct, images)
    return {"val": {"ca": correct / images, "ca_images": images, "ca_low": low, "ca_high": high, **fields}}


# Clean accuracy of models that are loaded


@pytest.mark.parametrize(
    ("correct", "classes", "outcome"),
    [
        (100, 10, "stopped"),  # chance
        (130, 10, "stopped"),  # its interval begins at 11 %, hardly above
        (200, 10, "passed"),
        (500, 2, "stopped"),
        (600, 2, "passed"),
        (40, 1000, "stopped"),
        (80, 1000, "passed"),
        (1000, 1, "unmeasured"),  # of one class everything is right
    ],
)
def test_a_loaded_model_must_be_well_over_chance(correct, classes, outcome):
    found = clean_accuracy(judged("evaluate_clean", classes=classes, facts=measured(correct, 1000)))
    assert (found.outcome, found.knew) == (outcome, "labels")


@given(st.integers(1, 2000), st.data(), st.integers(2, 1000), st.floats(0, 0.9))
def test_it_passes_exactly_if_its_interval_lies_far_enough_above_chance(images, data, classes, over):
    correct = data.draw(st.integers(0, images))
    gates = {"clean_accuracy": {"over_chance": over, "act": "report"}}
    found = clean_accuracy(judged("evaluate_clean", gates=gates, classes=classes, facts=measured(correct, images)))
    low, chance = wilson_interval(correct, images)[0], 1 / classes
    assert (found.outcome == "passed") == ((low - chance) / (1 - chance) >= over)
    assert found.outcome in {"passed", "reported"}, "set to report it never stops"
    assert bool(found.reason) == (found.outcome == "reported")


def test_a_poisoned_model_is_asked_too_if_it_was_given_and_not_if_it_was_trained_here():
    facts = measured(10, 100, asr=1.0, asr_images=90, asr_low=0.9, asr_high=1.0, triggered_accuracy=0.0)
    found = clean_accuracy(judged("implant", {POISONED: "given.pt"}, facts=facts))
    assert found.outcome == "stopped"
    assert "victim.implant.checkpoint" in found.reason
    assert "act: report" in found.reason
    assert clean_accuracy(judged("implant", facts=facts)) is None


# AUROC: only who knows the poison can measure it


@pytest.mark.parametrize(
    ("auroc", "asked", "outcome"),
    [
        (0.9, {}, "passed"),
        (0.4, {}, "reported"),
        (0.4, {"act": "stop"}, "stopped"),
        (0.6, {"act": "stop", "at_least": 0.7}, "stopped"),
        (0.7, {"act": "stop", "at_least": 0.7}, "passed"),
        (None, {"act": "stop"}, "unmeasured"),
    ],
)
@pytest.mark.parametrize("gate", [detector_auroc, overfit_auroc])
def test_an_auroc_is_reported_and_gated_if_asked(gate, auroc, asked, outcome):
    name = gate.__name__
    diagnostics = {} if auroc is None else {"auroc": auroc}
    found = gate(judged("detect_knn", gates={name: asked}, diagnostics=diagnostics))
    assert (found.gate, found.stage, found.outcome, found.measured) == (name, "detect_knn", outcome, auroc)
    assert found.knew == "poison"
    assert (f"gates.{name}" in found.reason) == (outcome in {"reported", "stopped"})
    assert ("goes on all the same" in found.reason) == (outcome == "stopped")


def test_without_a_known_attack_there_is_no_implant_to_ask_for():
    assert implant(judged("implant", facts=measured(50, 100))) is None


def test_gates_are_asked_in_their_order_up_to_the_first_that_stops():
    facts = measured(10, 100, asr=0.0, asr_images=90, asr_low=0.0, asr_high=0.1, triggered_accuracy=0.0)
    both = (implant, clean_accuracy)
    weak = judged("implant", {POISONED: "given.pt", "victim.implant.min_asr": 0.5}, facts=facts)
    assert [found.gate for found in judge(both, weak)] == ["implant"]
    opened = judged("implant", {POISONED: "given.pt", "victim.implant.min_asr": 0}, facts=facts)
    assert [found.outcome for found in judge(both, opened)] == ["passed", "stopped"]


# In a trial


@pytest.fixture
def chance(tmp_path, untrained):
    """A file with the weights of a model that has learnt nothing."""
    path = tmp_path / "chance.safetensors"
    save_file({name: value.contiguous() for name, value in untrained.state().items()}, path)
    return path


def test_a_loaded_model_at_chance_stops_before_the_implant_and_says_what_to_check(tmp_path, chance):
    record = run_trial(tmp_path, {CHECKPOINT: str(chance)})[-1]
    assert (record.state, record.fault) == ("FAILED", "StoppedByGate")
    assert [stage.stage for stage in record.stages] == ["load", "evaluate_clean"]
    assert "hardly better than chance: CA 0." in record.reason
    assert "victim.model" in record.reason
    assert record.stopped_by.reason == record.reason
    assert (record.clean_val.asr, record.clean_val.split) == (None, "val")
    assert len(record.classes) == len(record.clean_val.per_class.images)


def test_set_to_report_it_goes_on_and_the_record_says_so(tmp_path, chance):
    record = run_trial(tmp_path, {CHECKPOINT: str(chance), **NO_DEFENSE}, gates=REPORT)[-1]
    assert record.state == "DONE"
    found = {gate.gate: gate.outcome for gate in record.gates}
    assert found == {"clean_accuracy": "reported", "implant": "passed", "implant_accuracy": "reported"}
    again = run_trial(tmp_path, {CHECKPOINT: str(chance), "defense": {"kind": "none"}}, gates=REPORT)[-1]
    assert all(stage.reused for stage in again.stages), "it is evaluated once for all trials of the victim"
    assert (again.gates, again.clean_val) == (record.gates, record.clean_val)


@pytest.mark.parametrize("where", [CHECKPOINT, POISONED])
def test_a_checkpoint_with_weights_that_are_not_finite_is_refused_by_name(tmp_path, untrained, where):
    state = {name: tensor.clone().contiguous() for name, tensor in untrained.state().items()}
    state["visual.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "broken.safetensors")
    record = run_trial(tmp_path, {where: str(tmp_path / "broken.safetensors")}, gates=REPORT)[-1]
    assert record.state == "FAILED"
    assert "visual.conv1.weight" in record.reason
    assert "finite" in record.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverged_stops_whatever_the_gates_are_set_to(tiny_run, tmp_path, monkeypatch, value):
    original = overfit.run

    def diverges(context):
        for epoch in original(context):
            output = epoch.snapshot()
            weights = {name: tensor.clone() for name, tensor in output.model.items()}
            weights["visual.conv1.weight"][0, 0, 0, 0] = value
            broken = replace(output, model=weights)
            yield replace(epoch, snapshot=lambda broken=broken: broken)

    monkeypatch.setattr(overfit, "run", diverges)
    root = tiny_run.copy(tmp_path)
    record = run_trial(root, {"defense.overfit_epochs": 1}, gates=REPORT)[-1]
    assert (record.state, record.fault, record.stages[-1].stage) == ("FAILED", "NotFinite", "overfit")
    assert "weights that are NaN or infinite, in 1 of" in record.reason
    assert "visual.conv1.weight" in record.reason
    assert (record.stopped_by.gate, record.stopped_by.measured) == ("finite_weights", -1)
    assert record.stages[-1].key not in ArtifactStore(root).keys("overfit"), "nothing of it is in the store"


def test_an_auroc_below_what_is_asked_for_stops_behind_its_stage_and_is_told_from_a_weak_implant(tiny_run):
    gates = Gates.model_validate({"detector_auroc": {"at_least": 1.0, "act": "stop"}})
    record = run_trial(tiny_run.root, gates=gates)[-1]
    assert (record.state, record.fault, record.stages[-1].stage) == ("FAILED", "StoppedByGate", "detect_clean")
    assert record.stopped_by.knew == "poison"
    assert record.stopped_by.measured == record.stages[-1].diagnostics["auroc"]


def test_a_trial_that_passes_says_what_was_asked(tiny_run):
    found = {gate.gate: (gate.stage, gate.outcome) for gate in tiny_run.record.gates}
    assert found["implant"] == ("implant", "passed")
    assert found["detector_auroc"][0] == "detect_clean"
    assert found["overfit_auroc"][0] == "overfit"
    assert {outcome for _, outcome in found.values()} <= {"passed", "reported", "unmeasured"}


def test_thresholds_are_no_part_of_a_trial_and_so_of_no_key():
    with pytest.raises(ValidationError):
        tiny_trial({"gates": {}})
    for name in Gates.model_fields:
        assert all(name not in str(node.settings) for node in build_pipeline(tiny_trial(), 0))


# Another threshold asks again


@pytest.mark.parametrize(
    ("outcome", "measured", "asked", "confirmed"),
    [
        ("passed", 0.9, {"act": "stop", "at_least": 0.95}, False),
        ("passed", 0.9, {"act": "report", "at_least": 0.95}, True),
        ("stopped", 0.4, {"act": "stop"}, True),
        ("stopped", 0.4, {"act": "report"}, False),
        ("stopped", 0.4, {"act": "stop", "at_least": 0.3}, False),
        ("reported", 0.4, {"act": "stop"}, False),
        ("unmeasured", None, {"act": "stop"}, True),
    ],
)
def test_a_finding_is_confirmed_if_the_trial_would_end_the_same(outcome, measured, asked, confirmed):
    found = GateOutcome(
        gate="overfit_auroc", stage="overfit", measured=measured, threshold=0.5, outcome=outcome, knew="poison"
    )
    assert Gates.model_validate({"overfit_auroc": asked}).confirm(found) is confirmed
    assert Gates().confirm(found.model_copy(update={"gate": "implant"})), "asked for by the trial's own settings"


def test_buffers_may_be_infinite(clip):
    from ubt.models.clip import check_finite

    net = torch.nn.Linear(2, 2)
    net.register_buffer("mask", torch.full((2,), -torch.inf))
    check_finite(net.state_dict(), net, "it")
