"""What takes no training: deploying the clean model, and weights between it and the poisoned one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_victim import run_trial

from ubt.models.clip import same_state
from ubt.stages.reference import between

REFERENCE = {"defense": {"kind": "reference"}}


def interpolated(alpha):
    return {"defense": {"kind": "interpolate", "clean_weight": alpha}}


def test_the_reference_is_the_clean_model_to_the_bit_and_takes_no_room(bench):
    artifact = bench.artifact("reference", REFERENCE)
    assert same_state(artifact.weights, bench.inputs("reference", REFERENCE)["clean"].weights)
    assert artifact.manifest.base == f"pretrain/{artifact.manifest.inputs['clean']}"


@pytest.mark.parametrize(("alpha", "role"), [(0.0, "poisoned"), (1.0, "clean")])
def test_the_ends_of_the_line_are_the_two_models_to_the_bit(bench, alpha, role):
    own, inputs = bench.artifact("interpolate", interpolated(alpha)), bench.inputs("interpolate", interpolated(alpha))
    assert same_state(own.weights, inputs[role].weights)


def test_weights_and_statistics_of_batch_norm_lie_between(bench):
    quarter, inputs = bench.output("interpolate", interpolated(0.25)), bench.inputs("interpolate", interpolated(0.25))
    poisoned, clean = inputs["poisoned"].weights, inputs["clean"].weights
    for name in ("visual.conv1.weight", "visual.bn1.running_mean", "logit_scale"):
        assert not torch.equal(poisoned[name], clean[name]), name
        assert torch.allclose(quarter.model[name], 0.75 * poisoned[name] + 0.25 * clean[name], atol=1e-6), name


@given(
    st.floats(0, 1),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=4),
)
def test_what_lies_between_has_the_type_it_had_and_leaves_both_models_alone(alpha, dtype, values):
    poisoned = {"w": torch.tensor(values, dtype=dtype), "seen": torch.tensor(3)}
    clean = {"w": -torch.tensor(values, dtype=dtype), "seen": torch.tensor(8)}
    found = between(poisoned, clean, alpha)
    assert {name: value.dtype for name, value in found.items()} == {"w": dtype, "seen": torch.int64}
    assert (found["w"].abs() <= clean["w"].abs()).all()
    assert int(found["seen"]) in (3, 8)
    found["w"] += 1
    found["seen"] += 1
    assert torch.equal(poisoned["w"], -clean["w"]), "a model was written to"
    assert (int(poisoned["seen"]), int(clean["seen"])) == (3, 8)


def test_the_row_is_evaluated_like_any_defense(bench):
    root = bench.workspace.store.root
    record = run_trial(root, REFERENCE)[-1]
    assert record.state == "DONE", record.reason
    assert [stage.stage for stage in record.stages][-2:] == ["reference", "evaluate"]
    assert record.stages[-2].diagnostics == {"clean_pairs": 0.0}
    clean = bench.clip(bench.inputs("reference", REFERENCE)["clean"].weights)
    evaluator = bench.workspace.evaluator(bench.artifact("poison"))
    assert record.test == evaluator.rates(clean, "test", by_class=True)
