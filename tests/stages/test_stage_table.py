"""What every row of the table of stages must be, and that every defense can be run."""

import inspect
import json

import pytest
from tiny_victim import TINY, tiny_trial

from ubt.common.fingerprint import fingerprint
from ubt.defenses import DEFENSES
from ubt.engine.execution import imported
from ubt.engine.graph import build_pipeline
from ubt.stages import STAGES, stages_of
from ubt.trials.metrics import METRICS

EVERY_STAGE = pytest.mark.parametrize("spec", STAGES.values(), ids=STAGES)
VARIANTS = [{"kind": defense().kind} for defense in DEFENSES]
VARIANTS += [{"kind": "ubt", "detector": detector} for detector in ("gain", "poisoned", "knn", "lof")]
"""Every defense, and once more for each of its settings that changes which stages it has."""
TRIALS = {" ".join(variant.values()): tiny_trial({"defense": variant}) for variant in VARIANTS}
EVERY_TRIAL = pytest.mark.parametrize("trial", TRIALS.values(), ids=TRIALS)
OF_DEFENSES = sorted(
    {name for trial in TRIALS.values() for name in trial.defense.stages if not trial.defense.knows_poison}
)


def trials_with(spec):
    """Return a trial for each variant of a defense and kind of victim that runs the stage."""
    victims = ({}, {"victim.model.random_weights": True})
    trials = [tiny_trial({**victim, "defense": variant}) for variant in VARIANTS for victim in victims]
    trials.append(tiny_trial({"metrics": [measure().kind for measure in METRICS]}))
    return [trial for trial in trials if spec in stages_of(trial)]


@EVERY_STAGE
def test_a_stage_is_a_function_of_its_context(spec):
    run = imported(spec.run)
    assert list(inspect.signature(run).parameters) == ["context"]
    assert run.__doc__
    if spec.diagnose:
        assert list(inspect.signature(imported(spec.diagnose)).parameters) == ["context", "output", "manifest"]


@EVERY_STAGE
def test_a_stage_is_run_by_some_trial_under_the_name_it_is_listed_by(spec):
    assert STAGES[spec.name] is spec
    assert spec.version >= 1
    assert spec.provides
    assert trials_with(spec)


@EVERY_STAGE
def test_the_settings_of_a_stage_are_plain_json(spec):
    for trial in trials_with(spec):
        settings = spec.settings(trial)
        assert json.loads(json.dumps(settings)) == settings
        fingerprint(settings)


@EVERY_STAGE
def test_a_stage_that_counts_epochs_says_by_which_setting(spec):
    if spec.epochs is None:
        assert not spec.evaluates_each_epoch
        return
    for trial in trials_with(spec):
        assert isinstance(spec.settings(trial)[spec.epochs], int)


@EVERY_TRIAL
def test_the_stages_of_a_defense_are_in_the_table(trial):
    stages = trial.defense.stages
    assert set(stages) <= set(STAGES)
    assert len(set(stages)) == len(stages)


@pytest.mark.parametrize("variant", VARIANTS, ids=TRIALS)
@pytest.mark.parametrize("victim", [{}, {"victim.model.random_weights": True}], ids=["pretrain", "load"])
def test_what_a_stage_needs_is_provided_by_those_before_it(variant, victim):
    trial = tiny_trial({**victim, "defense": variant})
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
def test_the_judged_model_is_the_defended_one(trial):
    nodes = {node.spec.name: node for node in build_pipeline(trial, seed=0)}
    last = next((name for name in reversed(trial.defense.stages) if "model" in STAGES[name].provides), "implant")
    assert nodes["evaluate"].inputs["model"] == nodes[last].key


@EVERY_TRIAL
def test_the_victims_stages_come_first_and_the_judge_last(trial):
    names = [spec.name for spec in stages_of(trial)]
    assert names == ["pretrain", "poison", "implant", *trial.defense.stages, "evaluate"]


def test_measures_come_behind_the_judge_in_the_order_in_which_they_are_asked_for():
    kinds = [measure().kind for measure in METRICS]
    for asked in (kinds, kinds[::-1]):
        names = [spec.name for spec in stages_of(tiny_trial({"metrics": asked}))]
        assert names[names.index("evaluate") + 1 :] == asked


def test_a_measure_provides_nothing_that_another_stage_needs():
    needed = {role for spec in STAGES.values() for role in spec.needs}
    assert not {role for measure in METRICS for role in STAGES[measure().kind].provides} & needed


# Honesty: what is poisoned is for the attacker and the judge


@pytest.mark.parametrize("name", OF_DEFENSES)
def test_no_stage_of_a_defense_may_know_what_is_poisoned(bench, name):
    assert not STAGES[name].sees_poison
    variant = next(v for v in VARIANTS if name in tiny_trial({"defense": v}).defense.stages)
    context = bench.context(name, {"defense": {**TINY["defense"], **variant} if variant["kind"] == "ubt" else variant})
    for secret in ("manifest", "evaluator"):
        with pytest.raises(PermissionError, match=f"stage `{name}` must not know"):
            getattr(context, secret)


def test_only_what_is_marked_as_knowing_the_poison_has_a_stage_that_may_know_it():
    for trial in TRIALS.values():
        told = any(STAGES[name].sees_poison for name in trial.defense.stages)
        assert told is trial.defense.knows_poison


@pytest.mark.parametrize("name", ["implant", "evaluate"])
def test_the_attacker_and_the_judge_may_know(bench, name):
    context = bench.context(name)
    assert len(context.manifest.indices) == 20
    assert context.evaluator.rates(context.clip("clean" if name == "implant" else "model"), "val").asr_images == 44


def test_a_stage_reads_only_what_it_says_it_needs(bench):
    context = bench.context("suspect")
    assert context.artifact("trust").meta.stage == "detect_clean"
    with pytest.raises(KeyError):
        context.artifact("poisoned")
