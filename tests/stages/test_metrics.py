"""Further metrics of the defended model: each against its own formula, computed in another way."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tiny_victim import run_trial, tiny_trial
from torch.distributions import Normal, kl_divergence

from ubt.attacks import Rows
from ubt.common.errors import StageFault, UserError
from ubt.data.base import Labelled
from ubt.engine.context import StageInput
from ubt.engine.graph import PipelineBuilder, build_pipeline, stages_of
from ubt.engine.spec import stage_named, stage_of_metric
from ubt.methods.evaluation import Evaluator, zero_shot_weights
from ubt.methods.training import Recipe, train_on_pairs
from ubt.models.clip import embed_images
from ubt.stages import evaluation
from ubt.testing import stamped
from ubt.trials.metrics import METRICS, LinearProbe, Retrieval

ALL = [metric().kind for metric in METRICS]
NONE = {"kind": "none"}


def context_of(bench, kind, changes=None, seed=0, given=None, **settings):
    """Return what the stage of a metric is given, with these settings of its own."""
    return bench.context(kind, {"metrics": [{"kind": kind, **settings}], **(changes or {})}, seed, given)


def diagnostics_of(context, stage):
    """Return what the record says of a metric."""
    run, diagnose = (getattr(evaluation, name) for name in (stage, f"diagnose_{stage}"))
    return diagnose(context, run(context), context.manifest)


# Retrieval


def brute_force_recall(similarities, right, k):
    """Return recall@k by sorting each row, wrong answers first among equals."""
    hits = []
    for row, answers in zip(similarities, right, strict=True):
        ranked = sorted(range(len(row)), key=lambda column: (-row[column], answers[column]))
        hits.append(any(answers[column] for column in ranked[:k]))
    return sum(hits) / len(hits)


@given(st.data())
def test_recall_is_that_of_sorting_every_row(data):
    size = data.draw(st.integers(1, 7))
    captions = data.draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size))
    levels = st.integers(-3, 3)  # few, so that ties are met
    rows = data.draw(st.lists(st.lists(levels, min_size=size, max_size=size), min_size=size, max_size=size))
    right = [[one == other for other in captions] for one in captions]
    assert evaluation.same_captions(captions).tolist() == right
    for k in (1, 5):
        found = evaluation.recall_at(torch.tensor(rows, dtype=torch.float32), torch.tensor(right), k)
        assert found == pytest.approx(brute_force_recall(rows, right, k))


def test_a_model_that_finds_everything_alike_finds_nothing():
    assert evaluation.recall_at(torch.full((8, 8), 0.7), torch.eye(8, dtype=torch.bool), 5) == 0.0


def test_a_repeated_caption_is_as_right_as_the_image_s_own():
    similarities = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    assert evaluation.recall_at(similarities, evaluation.same_captions(["a boat", "a boat"]), 1) == 1.0
    assert evaluation.recall_at(similarities, evaluation.same_captions(["a boat", "a tree"]), 1) == 0.0


def test_retrieval_is_of_the_defended_model_on_clean_pairs(bench):
    context = context_of(bench, "retrieval", pairs=60)
    found = diagnostics_of(context, "retrieval")
    chosen = evaluation.searched_pairs(context)
    assert len(set(chosen)) == 60 == found["pairs"]
    assert not set(chosen) & set(context.manifest.indices)
    clip, captions = context.clip("model"), [context.pairs.captions[index] for index in chosen]
    with torch.no_grad():
        images = torch.cat([clip.encode_images(context.pairs.take(np.array([index]))) for index in chosen])
        texts = torch.cat([clip.encode_tokens(clip.tokenize([caption])) for caption in captions])
    similarities = (images @ texts.T).tolist()
    right = [[one == other for other in captions] for one in captions]
    for k in (1, 5):
        assert found[f"image_to_text_recall_{k}"] == pytest.approx(brute_force_recall(similarities, right, k))
        backwards = [list(column) for column in zip(*similarities, strict=True)]
        assert found[f"text_to_image_recall_{k}"] == pytest.approx(brute_force_recall(backwards, right, k))


def test_the_pairs_searched_follow_from_the_seed_and_are_all_clean_ones_if_there_are_too_few(bench):
    def chosen(seed=0, **settings):
        return evaluation.searched_pairs(context_of(bench, "retrieval", seed=seed, **settings)).tolist()

    assert chosen(pairs=30) == chosen(pairs=30) == chosen(pairs=60)[:30]
    assert chosen(pairs=30) != chosen(pairs=30, seed=1)
    assert len(chosen()) == 180, "200 pairs, of which 20 are poisoned"


# Linear probe


def test_the_probe_is_scikit_learn_s_on_embeddings_of_validation_images(bench):
    context = context_of(bench, "linear_probe", inverse_regularisation=3.0)
    clip, data, attack = context.clip("model"), context.data, context.manifest.attack

    def embed(images):
        with torch.no_grad():
            return np.concatenate([clip.encode_images(image[None]).double().numpy() for image in images])

    probe = LogisticRegression(C=3.0, max_iter=1000).fit(embed(data.val.images), data.val.labels)
    target = list(data.classes).index(attack.target)
    others = stamped(attack, data.test.images[data.test.labels != target])
    found = diagnostics_of(context, "linear_probe")
    assert found["ca"] == pytest.approx(probe.score(embed(data.test.images), data.test.labels))
    assert found["asr"] == pytest.approx(np.mean(probe.predict(embed(others)) == target))
    assert diagnostics_of(context, "linear_probe") == found


def test_a_probe_finds_a_trigger_that_embeddings_show(bench, monkeypatch):
    """Embeddings that are one-hot for the class, and the target's for triggered images, have CA 1 and ASR 1."""
    context = context_of(bench, "linear_probe")
    data, classes = context.data, torch.eye(len(context.data.classes))
    shown = context.evaluator.shown(context.clip("model"), "test")
    assert len(shown.triggered) == 44

    def ideal(evaluator, clip, split):
        return replace(shown, clean=classes[shown.labels], triggered=classes[[shown.target] * 44])

    monkeypatch.setattr(evaluation, "embedded", lambda clip, images: classes.double().numpy()[data.val.labels])
    monkeypatch.setattr(evaluation.Evaluator, "shown", ideal)
    assert diagnostics_of(context, "linear_probe") == {"ca": 1.0, "asr": 1.0}


def test_a_probe_needs_two_classes():
    with pytest.raises(StageFault, match="two classes"):
        evaluation.fitted(np.eye(3), np.zeros(3, dtype=np.int64), LinearProbe())


# Rebound


def test_rebound_evaluates_the_defended_model_after_fine_tuning_on_clean_pairs(bench):
    context = context_of(bench, "rebound", pairs=80, epochs=2, learning_rate=1e-3, batch_size=16)
    found = diagnostics_of(context, "rebound")
    clip, pairs = context.clip("model"), evaluation.benign_pairs(context)
    recipe = Recipe(epochs=2, learning_rate=1e-3, batch_size=16, weight_decay=0.0, warmup_steps=0)
    assert len(list(train_on_pairs(clip, pairs, clip.tokenize(pairs.captions), recipe, 0, "rebound"))) == 2
    for split in ("val", "test"):
        rates = context.evaluator.rates(clip, split)
        assert (found[f"{split}_asr"], found[f"{split}_ca"]) == (rates.asr, rates.ca)
    assert set(found) == {"val_asr", "val_ca", "test_asr", "test_ca"}


def test_rebound_leaves_the_defended_model_as_it_is(bench):
    context = context_of(bench, "rebound", learning_rate=1e-2)
    before = {name: value.clone() for name, value in context.artifact("model").weights.items()}
    assert evaluation.rebound(context).model is None
    assert all(torch.equal(value, before[name]) for name, value in context.artifact("model").weights.items())


def test_benign_pairs_are_pre_training_pairs_and_not_those_of_the_defender(bench):
    context = context_of(bench, "rebound", pairs=40)
    pairs = evaluation.benign_pairs(context)
    assert pairs.whole is context.data.pretrain
    assert len(set(pairs.chosen)) == 40 == len(pairs)
    defender, _ = context.clean_pairs(40)
    assert set(pairs.chosen) != set(defender.chosen)


def test_without_pre_training_pairs_the_clean_ones_of_the_training_pairs_are_taken(bench, monkeypatch):
    context = context_of(bench, "rebound")
    monkeypatch.setattr(bench.workspace, "data", replace(context.data, pretrain=None))
    pairs = evaluation.benign_pairs(context)
    assert len(pairs) == 180
    assert not set(pairs.chosen) & set(context.manifest.indices)
    clean = context.data.train
    assert np.array_equal(pairs.take(np.arange(180)), clean.images[pairs.chosen])
    assert list(pairs.captions) == [clean.captions[index] for index in pairs.chosen]


# PAC-Bayes


def test_the_divergence_is_that_of_torch_distributions():
    rng = torch.Generator().manual_seed(0)
    prior = {"a": torch.randn(3, 4, generator=rng), "b": torch.randn(5, generator=rng)}
    weights = {name: value + torch.randn(value.shape, generator=rng) for name, value in prior.items()}
    expected = sum(
        kl_divergence(Normal(weights[name].double(), 0.3), Normal(prior[name].double(), 0.3)).sum() for name in prior
    )
    assert evaluation.gaussian_kl(weights, prior, 0.3**2) == pytest.approx(float(expected))
    assert evaluation.gaussian_kl(prior, {**prior, "counter": torch.tensor(7)}, 0.1) == 0.0


def test_the_bound_is_mcallester_s_with_maurer_s_constant():
    assert evaluation.bound_term(10.0, 100, 0.05) == pytest.approx(0.2827672, abs=1e-6)
    assert evaluation.bound_term(10.0, 400, 0.05) < evaluation.bound_term(10.0, 100, 0.05)
    assert evaluation.bound_term(10.0, 100, 0.01) > evaluation.bound_term(10.0, 100, 0.05)


def bounded(context):
    return evaluation.diagnose_pac_bayes(context, evaluation.pac_bayes(context), None)


def test_the_divergence_is_of_the_parameters_between_the_poisoned_and_the_defended_model(bench):
    context = context_of(bench, "pac_bayes", variance=0.01)
    names = [name for name, _ in context.clip("model").net.named_parameters()]
    before, after = context.artifact("poisoned").weights, context.artifact("model").weights
    squared = sum(float((after[name].double() - before[name].double()).square().sum()) for name in names)
    found = bounded(context)
    assert found["kl"] == pytest.approx(squared / 0.02)
    assert found["kl"] > 0
    assert found["empirical_risk"] == 1 - context.facts("rates")["val"]["ca"]
    assert found["bound_term"] == math.sqrt((found["kl"] + math.log(2 * math.sqrt(200) / 0.05)) / 400)
    assert found["bound"] == found["empirical_risk"] + found["bound_term"]


def test_the_statistics_of_batch_norm_are_no_weights(bench):
    context = context_of(bench, "pac_bayes")
    weights = context.artifact("model").weights
    counted = {name: value + 1 if "running_mean" in name else value for name, value in weights.items()}
    assert any("running_mean" in name for name in counted)
    assert bounded(context_of(bench, "pac_bayes", given={"model": StageInput(model=counted)})) == bounded(context)


def test_a_model_that_no_defense_has_touched_has_gone_nowhere(bench):
    assert bounded(context_of(bench, "pac_bayes", {"defense": NONE}))["kl"] == 0.0


# In a trial


@pytest.fixture(scope="module")
def measured(tiny_run, tmp_path_factory):
    """The tiny trial again, with all metrics."""
    root = tiny_run.copy(tmp_path_factory.mktemp("measured"))
    return root, run_trial(root, {"metrics": ALL})[-1]


def test_metrics_are_stages_behind_the_evaluation_and_change_nothing_else(tiny_run, measured):
    record = measured[1]
    assert record.state == "DONE", record.reason
    assert [stage.stage for stage in record.stages if not stage.reused] == ALL
    assert (record.val, record.test) == (tiny_run.record.val, tiny_run.record.test)
    assert record.epochs == tiny_run.record.epochs, "no further points on the way to the defended model"
    assert [metric["kind"] for metric in record.config["metrics"]] == ALL


def test_the_record_holds_what_was_measured(measured):
    found = {stage.stage: set(stage.diagnostics) for stage in measured[1].stages}
    both = [f"{way}_recall_{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5)]
    assert found["retrieval"] == {*both, "pairs"}
    assert found["linear_probe"] == {"ca", "asr"}
    assert found["rebound"] == {"val_asr", "val_ca", "test_asr", "test_ca"}
    assert found["pac_bayes"] == {"kl", "bound_term", "empirical_risk", "bound"}


def test_a_metric_once_computed_is_reused_whatever_else_is_asked_for(measured):
    root, record = measured
    again = run_trial(root, {"metrics": ["pac_bayes", {"kind": "rebound", "epochs": 1}]})[-1]
    stages = {stage.stage: stage for stage in again.stages}
    assert [stage.stage for stage in again.stages if not stage.reused] == ["rebound"]
    taken = next(stage for stage in record.stages if stage.stage == "pac_bayes")
    assert stages["pac_bayes"].diagnostics == taken.diagnostics


# Keys


PLAIN = tiny_trial()


def keys(metrics, builder=None):
    """Return the keys of the stages of one victim and defense, the same objects each time."""
    trial = PLAIN.model_copy(update={"metrics": tiny_trial({"metrics": metrics}).metrics})
    pipeline = builder.build(trial, 0, "data") if builder else build_pipeline(trial, 0, "data")
    return {node.spec.name: node.key for node in pipeline}


SETTINGS = [(model().kind, name) for model in METRICS for name in model.model_fields if name != "kind"]


@pytest.mark.parametrize(("kind", "setting"), SETTINGS)
def test_the_key_of_a_metric_depends_on_its_own_settings_alone(kind, setting):
    value = next(model() for model in METRICS if model().kind == kind).as_json()[setting]
    other = value + 1 if isinstance(value, int) else value / 2
    given = [{"kind": name, **({setting: other} if name == kind else {})} for name in ALL]
    builder = PipelineBuilder()
    before, after = keys(ALL, builder), keys(given, builder)
    assert {name for name in before if before[name] != after[name]} == {kind}
    assert after == keys(given), "also where trials share what they have in common"


def test_metrics_leave_the_keys_of_all_other_stages_as_they_were_in_any_order():
    plain, measured = keys([]), keys(ALL)
    assert {name: measured[name] for name in plain} == plain
    assert keys(ALL[::-1]) == measured


@pytest.fixture
def registered(monkeypatch):
    """Return what registers a metric of that kind until the end of the test."""
    monkeypatch.setattr(METRICS, "_items", dict(METRICS._items))
    monkeypatch.setattr(METRICS, "_modules", dict(METRICS._modules))
    yield lambda kind: METRICS.register(
        type("Other", (Retrieval,), {"kind": kind, "__annotations__": {"kind": Literal[kind]}, "__module__": "others"})
    )
    stage_named.cache_clear()


@pytest.mark.parametrize("kind", ["unlearn", "model", "detect_clean"])
def test_a_metric_cannot_be_called_like_a_stage_or_what_one_provides(registered, kind):
    before = stage_named("unlearn")
    registered(kind)
    with pytest.raises(UserError, match="is called like this metric"):
        stages_of(tiny_trial({"metrics": [kind]}))
    assert stage_named("unlearn") is before, "and those who do not ask for it do not meet it"


def test_a_metric_that_extends_another_keeps_its_own_settings(registered):
    registered("wider")
    trial = tiny_trial({"metrics": [{"kind": "wider", "pairs": 7}, {"kind": "retrieval", "pairs": 9}]})
    settings = {kind: stage_of_metric(kind).settings(trial) for kind in ("wider", "retrieval")}
    assert {kind: (one["kind"], one["pairs"]) for kind, one in settings.items()} == {
        "wider": ("wider", 7),
        "retrieval": ("retrieval", 9),
    }


@pytest.mark.parametrize("kind", ALL)
def test_what_is_measured_is_the_defended_model(bench, kind):
    asked = {"metrics": [kind]}
    assert bench.inputs(kind, asked)["model"].manifest.stage == "unlearn"
    assert bench.inputs(kind, {**asked, "defense": NONE})["model"].manifest.stage == "implant"


# ASR with the target's own images


def test_asr_over_all_images_is_that_of_stamping_and_classifying_every_one(bench):
    context = context_of(bench, "asr_all_images")
    found = diagnostics_of(context, "asr_all_images")
    data, attack = context.data, context.manifest.attack
    target, words = list(data.classes).index(attack.target), [attack.prompt(text) for text in data.templates]
    for role, prefix in (("model", ""), ("poisoned", "poisoned_")):
        clip = context.clip(role)
        for name, split in (("val", data.val), ("test", data.test)):
            everything = attack.stamp(split.images, Rows(name, np.arange(len(split.labels))))
            weights = zero_shot_weights(clip, data.classes, words)
            answers = (embed_images(clip, everything) @ weights.T).argmax(dim=1).numpy()
            assert found[f"{prefix}{name}_asr"] == pytest.approx((answers == target).mean())
            assert found[f"{prefix}{name}_images"] == len(answers) == 48
            low, high = (found[f"{prefix}{name}_asr_{end}"] for end in ("low", "high"))
            assert low <= found[f"{prefix}{name}_asr"] <= high


def test_it_stands_beside_our_asr_and_changes_nothing_of_it(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    record = run_trial(root, {"metrics": ["asr_all_images"]})[-1]
    assert (record.state, record.val, record.test) == ("DONE", tiny_run.record.val, tiny_run.record.test)
    assert [stage.stage for stage in record.stages if not stage.reused] == ["asr_all_images"]
    assert record.test.asr_images == 44, "without the target's own"
    assert record.stages[-1].diagnostics["test_images"] == 48


def test_images_of_the_target_alone_may_be_missing(bench):
    context = context_of(bench, "asr_all_images")
    data, target = context.data, list(context.data.classes).index(context.manifest.attack.target)
    kept = np.flatnonzero(data.val.labels != target)
    without = replace(data, val=Labelled(data.val.images[kept], data.val.labels[kept]))
    judge = Evaluator(without, context.manifest.attack)
    assert judge.hits_among_target_images(context.clip("model"), "val") == (0, 0)
    with pytest.raises(ValueError, match="no attack is known"):
        Evaluator(data, None).hits_among_target_images(context.clip("model"), "val")
