"""What every row of the table of stages must be, and how trials put them together (see also `test_contracts.py`)."""

from dataclasses import replace

import pytest
from tiny_victim import tiny_trial

from ubt.defenses import DEFENSES
from ubt.engine.context import StageContext
from ubt.engine.graph import build_pipeline, stages_of
from ubt.engine.spec import STAGES, stage_named, stage_names
from ubt.testing import TINY, check_stage
from ubt.trials.metrics import METRICS

EVERY_STAGE = pytest.mark.parametrize("spec", [*map(stage_named, stage_names())], ids=stage_names())
VARIANTS = [{"kind": defense().kind} for defense in DEFENSES]
VARIANTS += [{"kind": "ubt", "detector": detector} for detector in ("gain", "poisoned", "knn", "lof", "lid", "dao")]
"""Every defense, and once more for each of its settings that changes which stages it has."""
TRIALS = {" ".join(variant.values()): tiny_trial({"defense": variant}) for variant in VARIANTS}
EVERY_TRIAL = pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
OF_DEFENSES = sorted(
    {name for trial in TRIALS.values() for name in trial.defense.stages if not trial.defense.knows_poison}
)


def trials_with(spec):
    """Return a trial for each variant of a defense and kind of victim that runs the stage."""
    victims = ({}, {"victim.model.random_weights": True}, {"victim.model.pretrained": "openai"})
    trials = [tiny_trial({**victim, "defense": variant}) for variant in VARIANTS for victim in victims]
    trials.append(tiny_trial({"metrics": [metric().kind for metric in METRICS]}))
    return [trial for trial in trials if spec in stages_of(trial)]


@EVERY_STAGE
def test_a_stage_keeps_the_contract_in_every_trial_that_runs_it(spec):
    for trial in trials_with(spec):
        check_stage(spec, trial)


@EVERY_STAGE
def test_a_stage_is_run_by_some_trial_under_the_name_it_is_listed_by(spec):
    assert stage_named(spec.name) is spec
    assert trials_with(spec)


@EVERY_TRIAL
def test_a_defense_has_each_of_its_stages_once(trial):
    stages = trial.defense.stages
    assert set(stages) <= set(stage_names())
    assert len(set(stages)) == len(stages)


@pytest.mark.parametrize("variant", VARIANTS, ids=TRIALS)
def test_what_a_stage_needs_is_provided_by_those_before_it_also_where_the_model_is_loaded(variant):
    trial = tiny_trial({"victim.model.random_weights": True, "defense": variant})
    provided = set()
    for spec in stages_of(trial):
        assert set(spec.needs) <= provided, spec.name
        provided |= set(spec.provides)
    assert {"model", "rates"} <= provided


@EVERY_TRIAL
def test_a_role_is_filled_by_the_last_stage_that_provides_it(trial):
    nodes = build_pipeline(trial, seed=0)
    for position, node in enumerate(nodes):
        assert set(node.inputs) == set(node.spec.needs)
        for role, key in node.inputs.items():
            providers = [other for other in nodes[:position] if role in other.spec.provides]
            assert providers[-1].key == key


@EVERY_TRIAL
def test_the_evaluated_model_is_the_defended_one(trial):
    nodes = {node.spec.name: node for node in build_pipeline(trial, seed=0)}
    last = next((name for name in reversed(trial.defense.stages) if "model" in stage_named(name).provides), "implant")
    assert nodes["evaluate"].inputs["model"] == nodes[last].key


@EVERY_TRIAL
def test_the_victims_stages_come_first_and_the_evaluation_last(trial):
    names = [spec.name for spec in stages_of(trial)]
    assert names == ["pretrain", "poison", "implant", *trial.defense.stages, "evaluate"]


def test_metrics_come_behind_the_evaluation_in_the_order_in_which_they_are_asked_for():
    kinds = [metric().kind for metric in METRICS]
    for asked in (kinds, kinds[::-1]):
        names = [spec.name for spec in stages_of(tiny_trial({"metrics": asked}))]
        assert names[names.index("evaluate") + 1 :] == asked


def test_a_metric_provides_nothing_that_another_stage_needs():
    needed = {role for spec in map(stage_named, stage_names()) for role in spec.needs}
    assert not {role for metric in METRICS for role in stage_named(metric().kind).provides} & needed


# Honesty: what is poisoned is for the attacker and the evaluation (see also test_poison_out_of_reach.py)


@pytest.mark.parametrize("name", OF_DEFENSES)
def test_no_stage_of_a_defense_is_given_more_than_a_defender_has(bench, name):
    assert not stage_named(name).sees_poison
    variant = next(v for v in VARIANTS if name in tiny_trial({"defense": v}).defense.stages)
    context = bench.context(name, {"defense": {**TINY["defense"], **variant} if variant["kind"] == "ubt" else variant})
    assert type(context) is StageContext


def test_a_stage_that_needs_the_manifest_must_be_marked():
    with pytest.raises(ValueError, match="is not marked `sees_poison`"):
        replace(STAGES.get("evaluate"), sees_poison=False)


@pytest.mark.parametrize("name", ["implant", "evaluate"])
def test_the_attacker_and_the_evaluation_may_know(bench, name):
    context = bench.context(name)
    assert len(context.manifest.indices) == 20
    assert context.evaluator.rates(context.clip("clean" if name == "implant" else "model"), "val").asr_images == 44


def test_a_stage_reads_only_what_it_says_it_needs(bench):
    context = bench.context("suspect")
    assert set(context.artifact("trust").tensors) == {"pairs", "trust"}
    for role in ("poisoned", "pairs"):
        with pytest.raises(KeyError):
            context.artifact(role)
    with pytest.raises(KeyError):
        _ = context.pairs
