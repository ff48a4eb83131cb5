import numpy as np
import pytest
import torch
from torch.nn import functional

from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import StageInput
from ubt.methods.losses import clip_loss
from ubt.models.clip import between_start_and_end
from ubt.stages import unlearn
from ubt.stages.retention import Retention, retained_pairs, trusted_pairs

# The loss


def unit(*rows):
    return functional.normalize(torch.tensor(rows), dim=-1)


IMAGES = unit([1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0])
TEXTS = unit([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [4.0, 3.0])
"""Cosines 1, 0, −1 and 24/25."""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"unlearn_loss": "hinge"}, (1 + 0 + 0 + 0.96) / 4),
        ({"unlearn_loss": "hinge", "unlearn_margin": 0.5}, (0.5 + 0 + 0 + 0.46) / 4),
        ({"unlearn_loss": "hinge", "unlearn_margin": -0.25}, (1.25 + 0.25 + 0 + 1.21) / 4),
        ({"unlearn_loss": "ascent"}, (1 + 0 - 1 + 0.96) / 4),
        ({"unlearn_loss": "ascent", "unlearn_margin": 0.5}, (1 + 0 - 1 + 0.96) / 4),
    ],
)
def test_what_unlearning_lowers_is_the_hinge_or_the_mean_cosine(settings, expected):
    assert float(unlearn.forget_loss(IMAGES, TEXTS, UnlearnSettings(**settings))) == pytest.approx(expected)


def test_the_hinge_stops_at_the_margin_and_ascent_never_does():
    apart = IMAGES[2:3].clone().requires_grad_()
    for loss, moves in (("hinge", False), ("ascent", True)):
        unlearn.forget_loss(apart, TEXTS[2:3], UnlearnSettings(unlearn_loss=loss)).backward()
        assert bool(apart.grad.any()) is moves


# Captions of the relevant tokens alone

START, END = 49406, 49407


def shortened(tokens, kept):
    return unlearn.shorten(tokens, between_start_and_end(tokens) & ~kept)


@pytest.mark.parametrize(
    ("caption", "kept", "expected"),
    [
        ([11, 12, 13], [2], [12]),
        ([11, 12, 13], [1, 3], [11, 13]),
        ([11, 12, 13], [1, 2, 3], [11, 12, 13]),
        ([11, 12, 13], [], []),
        ([11, 12, 11], [1, 3], [11, 11]),
    ],
)
def test_kept_tokens_are_moved_together_between_start_and_end_of_text(caption, kept, expected):
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    tokens[0, : len(caption) + 2] = torch.tensor([START, *caption, END])
    mask = torch.zeros(1, 8, dtype=torch.bool)
    mask[0, kept] = True
    short = shortened(tokens, mask)[0].tolist()
    assert short == [START, *expected, END] + [0] * (6 - len(expected))


def test_a_caption_that_fills_the_context_can_be_kept_whole():
    tokens = torch.tensor([[START, 1, 2, 3, END]])
    whole = torch.tensor([[False, True, True, True, False]])
    assert torch.equal(shortened(tokens, whole), tokens)


def test_captions_are_shortened_one_by_one():
    tokens = torch.tensor([[START, 1, 2, 3, END], [START, 4, END, 0, 0]])
    mask = torch.tensor([[False, False, True, True, False], [False, True, False, False, False]])
    assert shortened(tokens, mask).tolist() == [[START, 2, 3, END, 0], [START, 4, END, 0, 0]]
    assert tokens.tolist() == [[START, 1, 2, 3, END], [START, 4, END, 0, 0]], "the originals are left alone"


def test_words_of_several_tokens_are_shortened_to_what_their_tokens_say(untrained):
    (tokens,) = untrained.tokenize(["the xylophonist sleeps"])
    words = int(tokens.argmax()) - 1
    assert words > 3, "one word is several tokens"
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 2:words] = True
    assert torch.equal(shortened(tokens[None], mask), untrained.tokenize(["xylophonist"]))
    mask[0, 2] = False
    assert shortened(tokens[None], mask)[0, 1] == tokens[3], "a part of a word may be kept alone"


# Which tokens are kept


def with_relevance(bench, scores, **settings):
    """Return a context in which the selected captions have these scores at their first three words."""
    relevance, words = torch.zeros(8, 16), torch.zeros(8, 16, dtype=torch.bool)
    words[:, 1:4] = True
    relevance[:, 1:4] = torch.tensor(scores)
    given = {"relevance": StageInput({"relevance": relevance, "words": words})}
    context = bench.context("unlearn", {f"defense.{name}": value for name, value in settings.items()}, given=given)
    return context, context.settings(UnlearnSettings)


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(0.0, [True, False, True]), (0.25, [False, False, True]), (0.24, [True, False, True]), (0.75, [False] * 3)],
)
def test_tokens_above_the_threshold_are_kept_and_none_at_it(bench, threshold, kept):
    context, settings = with_relevance(bench, [[0.25, 0.0, 0.75]] * 8, token_threshold=threshold)
    assert unlearn.kept_tokens(context, settings)[:, 1:4].tolist() == [kept] * 8


def test_whole_captions_are_kept_whatever_the_threshold(bench):
    scores = [[0.25, 0.0, 0.75]] * 8
    context, settings = with_relevance(bench, scores, token_threshold=0.9, unlearn_scope="caption")
    assert unlearn.kept_tokens(context, settings)[:, 1:4].all()


def test_captions_without_a_relevant_token_are_left_out(bench):
    scores = [[0.2, 0.3, 0.5], [0.3, 0.3, 0.4], *[[0.34, 0.33, 0.33]] * 6]
    context, settings = with_relevance(bench, scores, token_threshold=0.35)
    indices, tokens = unlearn.forgotten_pairs(context, settings)
    selection = context.artifact("selection").tensors["indices"]
    assert indices.tolist() == selection[:2].tolist()
    original = context.pair_tokens[selection[:2]]
    assert tokens[:, 1].tolist() == original[:, 3].tolist()
    assert unlearn.diagnose(context, next(unlearn.run(context)).snapshot(), None) == {
        "pairs": 2.0,
        "held_pairs": 100.0,
        "clean_pairs": 0.0,
        "tokens_per_caption": 2 / 8,
    }


def test_nothing_is_forgotten_if_no_token_is_relevant(bench):
    context, _ = with_relevance(bench, [[0.34, 0.33, 0.33]] * 8, token_threshold=0.5)
    *_, last = unlearn.run(context)
    poisoned = context.artifact("poisoned").weights
    assert last.loss is None
    assert all(torch.equal(value, poisoned[name]) for name, value in last.snapshot().model.items())
    assert last.snapshot().facts == {"pairs": 0, "held_pairs": 100}


# Pairs that hold the rest in place


@pytest.mark.parametrize("ratio", [0.2, 0.9, 1.0])
def test_pairs_held_in_place_are_those_trusted_most_and_never_suspects(bench, ratio):
    context = bench.context("unlearn", {"defense.retain_ratio": ratio})
    trust = context.artifact("trust").tensors["trust"].numpy()
    suspects = set(context.artifact("suspects").tensors["indices"].tolist())
    best = np.argsort(-trust, kind="stable")[: round(ratio * 200)]
    expected = {int(index) for index in best} - suspects
    assert set(trusted_pairs(context, context.settings(UnlearnSettings)).tolist()) == expected


def test_few_of_the_trusted_pairs_are_held_in_place_and_the_seed_says_which(bench):
    def retained(seed=0, **changes):
        context = bench.context("unlearn", {f"defense.{name}": value for name, value in changes.items()}, seed=seed)
        return set(retained_pairs(context, context.settings(UnlearnSettings)).tolist())

    few, all_of_them = retained(retain_samples=20), retained(retain_samples=10_000)
    assert len(few) == 20
    assert few < all_of_them
    assert few == retained(retain_samples=20)
    assert few != retained(retain_samples=20, seed=1)
    context = bench.context("unlearn")
    assert all_of_them == set(trusted_pairs(context, context.settings(UnlearnSettings)).tolist())


def retention(bench, **settings):
    context = bench.context("unlearn", {f"defense.{name}": value for name, value in settings.items()})
    moved = bench.context("unlearn").clip("poisoned")
    with torch.no_grad():
        for weight in (moved.net.visual.attnpool.c_proj.weight, moved.net.text_projection):
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    found = Retention(context, context.settings(UnlearnSettings))
    trusted = trusted_pairs(context, context.settings(UnlearnSettings))
    batch = found.draw(np.random.default_rng(5))
    chosen = trusted[batch]
    pixels, tokens = context.pairs.take(chosen), context.pair_tokens[chosen]
    assert np.array_equal(pixels, found.pixels(batch))
    with torch.no_grad():
        loss = float(found.loss(moved, moved.encode_images(pixels), batch))
        ends = [(clip.encode_images(pixels), clip.encode_tokens(tokens)) for clip in (moved, context.clip("poisoned"))]
    return loss, *ends, moved


def mean_distance(one, other):
    return sum(1 - float(a @ b) for a, b in zip(one, other, strict=True)) / len(one)


@pytest.mark.parametrize("towers", ["both", "image"])
def test_distillation_measures_how_far_the_trained_towers_have_moved(bench, towers):
    settings = {"retain_loss": "distill", "retain_weight": 3.0, "unlearn_towers": towers}
    loss, (images, texts), (images_before, texts_before), _ = retention(bench, **settings)
    expected = mean_distance(images, images_before) + (towers == "both") * mean_distance(texts, texts_before)
    assert loss == pytest.approx(3 * expected, rel=1e-4)
    assert expected > 1e-3


def test_contrastive_retention_is_clips_loss_on_trusted_pairs(bench):
    loss, (images, texts), _, moved = retention(bench, retain_loss="contrastive", retain_weight=0.5)
    assert loss == pytest.approx(0.5 * float(clip_loss(images, texts, moved.logit_scale.detach())), rel=1e-4)


def test_retention_can_be_left_out(bench):
    context = bench.context("unlearn", {"defense.retain_weight": 0.0})
    found = Retention(context, context.settings(UnlearnSettings))
    batch = found.draw(np.random.default_rng(5))
    assert len(batch) == 0
    assert found.loss(context.clip("poisoned"), torch.empty(0, 128), batch) == 0


# The stage


def forgotten_similarity(bench, context, model):
    indices, tokens = unlearn.forgotten_pairs(context, context.settings(UnlearnSettings))
    clip = bench.clip(model)
    with torch.no_grad():
        return float((clip.encode_images(context.pairs.take(indices)) * clip.encode_tokens(tokens)).sum(dim=1).mean())


@pytest.mark.parametrize("loss", ["hinge", "ascent"])
@pytest.mark.parametrize("towers", ["both", "image"])
def test_unlearning_drives_image_and_relevant_tokens_apart(bench, loss, towers):
    changes = {
        "defense.unlearn_loss": loss,
        "defense.unlearn_towers": towers,
        "defense.unlearn_epochs": 3,
        "defense.unlearn_learning_rate": 1e-3,
        "defense.retain_weight": 0.0,
    }
    context = bench.context("unlearn", changes)
    before = forgotten_similarity(bench, context, context.artifact("poisoned").weights)
    assert forgotten_similarity(bench, context, bench.output("unlearn", changes).model) < before - 0.1


def test_unlearning_in_the_image_tower_leaves_the_text_tower_alone(bench):
    poisoned = bench.context("unlearn").artifact("poisoned").weights
    model = bench.output("unlearn", {"defense.unlearn_towers": "image"}).model
    moved = {name for name in model if not torch.equal(model[name], poisoned[name])}
    assert moved
    assert all(name.startswith("visual.") for name in moved)


def test_unlearning_in_both_towers_moves_both_but_for_what_is_frozen(bench):
    poisoned = bench.context("unlearn").artifact("poisoned").weights
    model = bench.output("unlearn", {"defense.unlearn_towers": "both"}).model
    moved = {name for name in model if not torch.equal(model[name], poisoned[name])}
    assert {"text_projection", "visual.attnpool.c_proj.weight"} <= moved
    assert not any("running_" in name or "token_embedding" in name for name in moved)


def test_retention_keeps_trusted_pairs_where_they_were(bench):
    def moved(weight):
        changes = {
            "defense.retain_weight": weight,
            "defense.retain_loss": "distill",
            "defense.unlearn_towers": "image",
            "defense.unlearn_epochs": 4,
            "defense.unlearn_learning_rate": 1e-3,
        }
        context = bench.context("unlearn", changes)
        trusted = trusted_pairs(context, context.settings(UnlearnSettings))
        before, after = (
            bench.clip(model)
            for model in (context.artifact("poisoned").weights, bench.output("unlearn", changes).model)
        )
        pixels = context.pairs.take(trusted)
        with torch.no_grad():
            return mean_distance(after.encode_images(pixels), before.encode_images(pixels))

    assert moved(10.0) < 0.5 * moved(0.0)


def test_every_epoch_is_evaluated_on_the_validation_split_without_the_stage_knowing(tiny_run):
    stage = next(stage for stage in tiny_run.record.stages if stage.stage == "unlearn")
    assert [epoch.epoch for epoch in stage.epochs] == [1, 2]
    assert all(epoch.val is not None and epoch.val.ca_images == 48 for epoch in stage.epochs)
    total = tiny_run.record.val.model_copy(update={"per_class": None})
    assert stage.epochs[-1].val == total, "the last epoch is the defended model"


def test_pairs_are_unlearnt_once_an_epoch(bench, monkeypatch):
    context = bench.context("unlearn", {"defense.retain_weight": 0.0, "defense.token_threshold": 0.0})
    indices, _ = unlearn.forgotten_pairs(context, context.settings(UnlearnSettings))
    taken = []
    take = type(context.pairs).take
    monkeypatch.setattr(
        type(context.pairs), "take", lambda self, chosen: taken.append(list(chosen)) or take(self, chosen)
    )
    epochs = unlearn.run(context)
    next(epochs)
    first, count = [i for batch in taken for i in batch], len(taken)
    next(epochs)
    second = [i for batch in taken[count:] for i in batch]
    assert sorted(first) == sorted(second) == sorted(indices)
    assert first != second, "in another order"
