"""How much work each of the package's stages is, as functions of the trial and of how much data there is.

Counted from what the stages' functions do, not measured. Loads no torch.
"""

from __future__ import annotations

from typing import Any

from ubt.attacks.badclip import BadClip
from ubt.data.base import DataSizes
from ubt.engine.spec import stage_named
from ubt.engine.work import Work, embedded_twice, similarities, stepped, steps, trained, used, work
from ubt.trials.config import TrialConfig

_HELD, _SEEN = 256, 96
"""What is observed after each epoch (`ubt.stages.observation`)."""
_MOST_IMAGES = 1000
"""From so many a patch is learnt (`ubt.attacks.badclip_patch`)."""
_ATTENTION = 2.0
"""A caption whose attention is recorded goes through the text tower more slowly."""


def rates(trial: TrialConfig, sizes: DataSizes, *splits: str) -> Work:
    """Return the work of evaluating the images of some splits, clean and triggered."""
    images = sum(getattr(sizes, split) for split in splits)
    triggered = images * (1 - 1 / sizes.classes) if trial.victim.attack else 0
    return work(images=images + triggered)


def classifiers(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of making zero-shot classifiers anew, as is done when the text tower has changed."""
    attack = trial.victim.attack
    times = 2 if attack is not None and attack.prompt("{}") != "{}" else 1
    prompts = times * sizes.classes * sizes.templates
    return work(captions=prompts, tokens=prompts)


# The victim


def pretrain(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of training the clean model."""
    recipe = trial.victim.pretrain
    training = trained(recipe.epochs, sizes.pretrain, recipe.batch_size, recipe.micro_batch_size)
    return training + work(stages=1, builds=1, tokens=sizes.pretrain, models=1)


def load(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of loading it."""
    return work(stages=1, builds=1, models=1)


def evaluate_clean(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of evaluating it."""
    return work(stages=1, copies=1, images=sizes.val) + classifiers(trial, sizes)


def poison(trial: TrialConfig, sizes: DataSizes) -> Work | None:
    """Return the work of choosing what is poisoned, and of learning the trigger if it is learnt."""
    attack = trial.victim.attack
    if isinstance(attack, BadClip) and trial.victim.poisoning.kind != "given":
        learnt = attack.patch_steps * attack.patch_batch_size
        others, targets = min(_MOST_IMAGES, sizes.train), min(_MOST_IMAGES, sizes.train / sizes.classes)
        seen = work(images=others + targets, captions=others, tokens=others)
        return work(stages=1, copies=1, trained_images=learnt) + seen
    return None if attack is not None and attack.learner is not None else work(stages=1)


def implant(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of training the backdoor in, or of loading the poisoned model."""
    recipe = trial.victim.implant
    training = trained(recipe.epochs, sizes.train, recipe.batch_size, recipe.micro_batch_size)
    made = work(copies=1) if recipe.checkpoint else training
    judging = rates(trial, sizes, "val", "test") + classifiers(trial, sizes)
    return made + judging + work(stages=1, copies=1, tokens=sizes.train, models=1)


def retrain(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of training without the poison."""
    recipe, kept = trial.victim.implant, clean_pairs(trial, sizes)
    return trained(recipe.epochs, kept, recipe.batch_size, recipe.micro_batch_size) + work(stages=1, copies=1, models=1)


def clean_pairs(trial: TrialConfig, sizes: DataSizes) -> int:
    """Return how many training pairs are not poisoned, as far as the attack says it."""
    attack = trial.victim.attack
    return sizes.train - (attack.count(sizes.train) if attack else 0)


# Detectors and UBT


def looked_at(trial: TrialConfig, sizes: DataSizes) -> int:
    """Return how many pairs a detector looks at."""
    ratio: float = _of(trial).screened_ratio
    return max(2, round(ratio * sizes.train))


def suspects(trial: TrialConfig, sizes: DataSizes) -> int:
    """Return how many of them are suspicious."""
    ratio: float = _of(trial).suspicious_ratio
    return max(2, round(ratio * looked_at(trial, sizes)))


def selected(trial: TrialConfig, sizes: DataSizes) -> int:
    """Return how many of those are unlearned."""
    return min(int(_of(trial).unlearn_samples), suspects(trial, sizes))


def detect_by_one_model(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of similarities under one model."""
    return similarities(looked_at(trial, sizes), sizes) + work(stages=1, copies=1)


def detect_by_two_models(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of similarities under two."""
    return similarities(looked_at(trial, sizes), sizes) * 2 + work(stages=1, copies=2)


def detect_by_neighbours(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of near neighbours among all that is looked at."""
    pairs = looked_at(trial, sizes)
    return work(stages=1, copies=1, images=pairs, distances=pairs * pairs / 1e6)


def little(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of a stage that only sorts or draws."""
    return work(stages=1)


def overfit(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of overfitting: the epochs, and similarities of the suspects before and after."""
    settings, suspicious = _of(trial), suspects(trial, sizes)
    every = settings.overfit_data == "all"
    pairs = sizes.train if every else suspicious
    training = trained(settings.overfit_epochs, pairs, settings.overfit_batch_size, settings.overfit_micro_batch_size)
    judged = similarities(suspicious, sizes) * 2 + (similarities(pairs, sizes) if every else Work())
    return training + judged + work(stages=1, copies=2, bodies=1)


def attribute(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of finding out which tokens matter."""
    pairs = selected(trial, sizes)
    looked_into = 0 if _of(trial).attribution == "random" else pairs
    return work(stages=1, copies=1, images=looked_into, trained_captions=_ATTENTION * looked_into)


def unlearn(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of unlearning: its epochs, what holds the rest in place, and a look at each epoch's model."""
    settings, pairs = _of(trial), selected(trial, sizes)
    epochs, image_only = settings.unlearn_epochs, settings.unlearn_towers == "image"
    apart = looked_at(trial, sizes) - suspects(trial, sizes)
    trusted = min(max(2, round(settings.retain_ratio * looked_at(trial, sizes))), apart)
    held = min(settings.retain_samples, trusted) if settings.retain_weight else 0
    batches = epochs * steps(pairs, settings.unlearn_batch_size)
    forgotten = epochs * used(pairs, settings.unlearn_batch_size)
    kept = batches * min(settings.retain_batch_size, held)
    distilled = settings.retain_loss == "distill"
    if image_only:
        texts = work(captions=epochs * pairs + (0 if distilled else kept), image_steps=batches, image_towers=1)
    else:
        texts = work(trained_captions=forgotten + kept, steps=batches, bodies=1)
    before = work(images=held, captions=0 if image_only else held) if distilled else Work()
    seen = observed(sizes, pairs, suspects(trial, sizes) - pairs, suspects(trial, sizes) + held, epochs + 1)
    step, part = settings.unlearn_batch_size + min(settings.retain_batch_size, held), settings.unlearn_micro_batch_size
    again = embedded_twice(forgotten + kept, 0 if image_only else forgotten + kept, step, part)
    training = work(trained_images=forgotten + kept) + texts + before + again
    return training + seen + each_epoch(trial, sizes, epochs, not image_only) + work(stages=1, copies=3)


def observed(sizes: DataSizes, chosen: int, others: int, touched: int, looks: int) -> Work:
    """Return the work of looks at a model without the trigger: at pairs that are not touched, too, or at all."""
    held, chosen, others = min(_HELD, sizes.train - touched or sizes.train), min(_SEEN, chosen), min(_SEEN, others)
    return work(images=held + chosen + others, captions=held + chosen) * looks


def each_epoch(trial: TrialConfig, sizes: DataSizes, epochs: int, text_changes: bool) -> Work:
    """Return the work of evaluating the model of every epoch on validation."""
    judging = trial.judging
    share = judging.count(sizes.val) / sizes.val
    once = rates(trial, sizes, "val") * share + (classifiers(trial, sizes) if text_changes else Work())
    return once * (judging.times(epochs) if epochs else judging.after(0))


# Baselines


def finetune(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of fine-tuning on clean pairs."""
    return _fine_tuned(trial, sizes, "finetune", 1)


def cleanclip(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the same with every pair beside its augmentation."""
    pairs = _of(trial).cleanclip_epochs * used(_given_clean(trial, sizes), _of(trial).cleanclip_batch_size)
    return _fine_tuned(trial, sizes, "cleanclip", 2) + work(augmented=pairs, tokens=pairs)


def par(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the same with every pair embedded by the poisoned model, too."""
    pairs = _of(trial).par_epochs * used(_given_clean(trial, sizes), _of(trial).par_batch_size)
    changed = 0 if _of(trial).par_image_policy == "none" else pairs
    return _fine_tuned(trial, sizes, "par", 1) + work(images=pairs, captions=pairs, augmented=changed, copies=1)


def rank(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of ABL's brief training, and of judging all pairs before and after."""
    given = _of(trial)
    training = trained(given.isolate_epochs, sizes.train, given.isolate_batch_size, given.isolate_micro_batch_size)
    return training + work(images=sizes.train, captions=sizes.train) * 2 + work(stages=1, copies=2, bodies=1)


def ascend(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of ABL's unlearning."""
    settings = _of(trial)
    isolated = max(2, round(settings.isolation_ratio * sizes.train))
    batches = settings.ascend_epochs * steps(isolated, settings.ascend_isolated_batch_size)
    up = settings.ascend_epochs * used(isolated, settings.ascend_isolated_batch_size)
    pairs = up + batches * min(settings.ascend_batch_size, sizes.train - isolated)
    size = settings.ascend_isolated_batch_size + settings.ascend_batch_size
    training = stepped(pairs, batches, size, settings.ascend_micro_batch_size)
    seen = observed(sizes, isolated, 0, isolated, settings.ascend_epochs + 1)
    judging = each_epoch(trial, sizes, settings.ascend_epochs, text_changes=True)
    return training + seen + judging + work(stages=1, copies=2, bodies=1)


def another_model(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of a model that is made of others without training."""
    return work(stages=1, models=1)


# What a model is worth


def evaluate(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of evaluating the defended model.

    If its last epoch was evaluated, classifiers are at hand, and what it is worth on validation if that was in full.
    """
    made = trial.defense.stages
    last = stage_named(made[-1]) if made else None
    epochs = int(getattr(trial.defense, last.epochs)) if last and last.epochs else 0
    judged = last is not None and last.evaluates_each_epoch and trial.judging.after(epochs)
    full = judged and trial.judging.count(sizes.val) == sizes.val
    splits = ("test",) if full else ("val", "test")
    judging = rates(trial, sizes, *splits) + (Work() if judged or not made else classifiers(trial, sizes))
    return judging + work(stages=1, copies=1)


def retrieval(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of searching pairs by each other."""
    pairs = min(_metric(trial, "retrieval").pairs, clean_pairs(trial, sizes))
    return work(stages=1, copies=1, images=pairs, captions=pairs)


def linear_probe(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of embedding what a probe is fitted on, and of the fit."""
    return rates(trial, sizes, "test") + work(stages=1, copies=1, images=sizes.val, fits=1)


def rebound(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of a short training, and of evaluating what it comes to."""
    metric = _metric(trial, "rebound")
    pairs = min(metric.pairs, sizes.pretrain or sizes.train)
    judging = rates(trial, sizes, "val", "test") + classifiers(trial, sizes)
    return trained(metric.epochs, pairs, metric.batch_size) + judging + work(stages=1, copies=1, tokens=pairs)


def pac_bayes(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of comparing two models."""
    return work(stages=1, copies=1)


def asr_all_images(trial: TrialConfig, sizes: DataSizes) -> Work:
    """Return the work of evaluating the target's own images under two models."""
    own = 2 * (sizes.val + sizes.test) / sizes.classes
    return classifiers(trial, sizes) + work(stages=1, copies=2, images=own)


def _of(trial: TrialConfig) -> Any:  # noqa: ANN401 — the defense has the fields of its stages
    return trial.defense


def _metric(trial: TrialConfig, kind: str) -> Any:  # noqa: ANN401 — of that kind
    return next(metric for metric in trial.metrics if metric.kind == kind)


def _given_clean(trial: TrialConfig, sizes: DataSizes) -> int:
    return min(int(_of(trial).clean_pairs), sizes.pretrain)


def _fine_tuned(trial: TrialConfig, sizes: DataSizes, stage: str, images_of_pair: int) -> Work:
    settings, pairs = _of(trial), _given_clean(trial, sizes)
    epochs, size = getattr(settings, f"{stage}_epochs"), getattr(settings, f"{stage}_batch_size")
    passes = epochs * used(pairs, size) * images_of_pair
    part = getattr(settings, f"{stage}_micro_batch_size")
    training = stepped(passes, epochs * steps(pairs, size), images_of_pair * min(size, pairs), part)
    judging = each_epoch(trial, sizes, epochs, text_changes=True)
    return training + judging + work(stages=1, copies=1, tokens=pairs, bodies=1)
