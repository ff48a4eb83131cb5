"""CA and ASR: zero-shot classification of clean and triggered images. One definition, used everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ubt.attacks import Attack, Images, Rows, Split
from ubt.common.errors import StageFault
from ubt.common.statistics import wilson_interval
from ubt.data.base import DataSet, Labelled
from ubt.models.clip import Clip, State, embed_images, embed_tokens, same_state
from ubt.trials.rates import Rates


@dataclass(frozen=True)
class EvaluationSplit:
    """Evaluation images of one split, made ready once."""

    clean: Labelled
    triggered: Triggered | None
    """None if no attack is known."""


@dataclass(frozen=True)
class Triggered:
    """The images of one split whose class is not the target, with the trigger on."""

    images: Images
    """`[M, H, W, 3]`."""
    labels: Tensor
    """`[M]` int64: their true classes."""
    target: int
    """Number of the attacker's class."""


@dataclass(frozen=True)
class _Classifiers:
    """Zero-shot classifiers, `[C, D]` each: what clean images are compared with, and what triggered ones are."""

    clean: Tensor
    triggered: Tensor


class Evaluator:
    """Evaluates models on a data set under an attack.

    CA is the top-1 accuracy on clean images. ASR is, of the triggered images whose true class is *not* the
    target, the fraction classified as the target. Both kinds of images go through the same preprocessing.
    Prompts are the same too, unless the attack has a trigger in the text: it is in those for triggered images.
    If no attack is known (None), nothing can be triggered, and there is CA alone.
    """

    def __init__(self, data: DataSet, attack: Attack | None) -> None:
        self._data = data
        self._attack = attack
        self._of_target: dict[str, Triggered] = {}
        self._triggered_templates = [attack.prompt(template) if attack else template for template in data.templates]
        self._last: tuple[State, _Classifiers] | None = None
        self._splits = {
            "val": self._prepare("val", data.val, attack),
            "test": self._prepare("test", data.test, attack),
        }

    def rates(self, clip: Clip, split: str, by_class: bool = False) -> Rates:
        """Return CA of a model on `"val"` or `"test"` and, if the attack is known, ASR, with Wilson intervals.

        With `by_class` the counts behind them come class by class, too.

        Raises:
            StageFault: if the model has been trained to NaN.
        """
        images = self._splits[split]
        classifiers, labels = self._classifiers(clip), torch.from_numpy(images.clean.labels)
        scores = _scores(clip, images.clean.images, classifiers.clean)
        correct = scores.argmax(dim=1) == labels
        found: dict[str, object] = {
            "split": split,
            "ca_top5": _accuracy_among(5, scores, labels),
            **_rate("ca", correct),
        }
        counts = {"images": self._counts(labels), "correct": self._counts(labels[correct])}
        if images.triggered:
            triggered, true = images.triggered, images.triggered.labels
            answers = _scores(clip, triggered.images, classifiers.triggered).argmax(dim=1)
            hits = answers == triggered.target
            found |= _rate("asr", hits)
            found["triggered_accuracy"] = float((answers == true).float().mean())
            counts |= {"triggered": self._counts(true), "hits": self._counts(true[hits])}
        return Rates.model_validate(found | ({"per_class": counts} if by_class else {}))

    def _counts(self, labels: Tensor) -> list[int]:
        """Return how many of `labels[N]` are of each class, in the order of the classes."""
        counted: list[int] = torch.bincount(labels, minlength=len(self._data.classes)).tolist()
        return counted

    def hits_among_target_images(self, clip: Clip, split: Split) -> tuple[int, int]:
        """Return of how many triggered images of the target class itself a model says the target, and of how many.

        They are no part of ASR; of a model that is right on clean images most are such anyway.

        Raises:
            ValueError: if no attack is known.
        """
        if self._attack is None:
            raise ValueError("no attack is known, so nothing can be triggered")
        if split not in self._of_target:
            images, target = self._splits[split].clean, list(self._data.classes).index(self._attack.target)
            rows = np.flatnonzero(images.labels == target)
            stamped = self._attack.stamp(images.images[rows], Rows(split, rows)) if len(rows) else images.images[rows]
            self._of_target[split] = Triggered(stamped, torch.from_numpy(images.labels[rows]), target)
        own = self._of_target[split]
        if not len(own.labels):
            return 0, 0
        answers = _scores(clip, own.images, self._classifiers(clip).triggered).argmax(dim=1)
        return int((answers == own.target).sum()), len(answers)

    def images(self, split: str) -> EvaluationSplit:
        """Return the clean and the triggered images of `"val"` or `"test"`, for other ways to evaluate a model."""
        return self._splits[split]

    def _classifiers(self, clip: Clip) -> _Classifiers:
        """Return the zero-shot classifiers, made anew only if the text tower is not the one of the last call.

        A thousand classes times eighty prompts take longer than the images do, and unlearning may leave the
        text tower as it was.
        """
        tower = clip.text_state()
        if self._last is None or not same_state(tower, self._last[0]):
            self._last = ({name: value.clone() for name, value in tower.items()}, self._fresh_classifiers(clip))
        return self._last[1]

    def _fresh_classifiers(self, clip: Clip) -> _Classifiers:
        classes, templates = self._data.classes, self._data.templates
        clean = zero_shot_weights(clip, classes, templates)
        if self._triggered_templates == list(templates):
            return _Classifiers(clean, clean)
        return _Classifiers(clean, zero_shot_weights(clip, classes, self._triggered_templates))

    def _prepare(self, name: Split, split: Labelled, attack: Attack | None) -> EvaluationSplit:
        if attack is None:
            return EvaluationSplit(split, None)
        target = list(self._data.classes).index(attack.target)
        others = np.flatnonzero(split.labels != target)
        labels = torch.from_numpy(split.labels[others])
        return EvaluationSplit(split, Triggered(attack.stamp(split.images[others], Rows(name, others)), labels, target))


def _rate(name: str, successes: Tensor) -> dict[str, float]:
    """Return a rate of `successes[N]` bool with its interval and N, as the fields of `Rates` of that name."""
    count, number = int(successes.sum()), len(successes)
    low, high = wilson_interval(count, number)
    return {name: count / number, f"{name}_images": number, f"{name}_low": low, f"{name}_high": high}


def zero_shot_weights(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return one unit vector a class, `[C, D]`: the mean of its prompts' embeddings.

    Source: Radford et al., 2021 (arXiv 2103.00020), section 3.1.4.

    Raises:
        StageFault: if the model has been trained to NaN.
    """
    prompts = [template.format(name) for name in classes for template in templates]
    embeddings = _finite(embed_tokens(clip, clip.tokenize(prompts))).view(len(classes), len(templates), -1)
    return functional.normalize(embeddings.mean(dim=1), dim=-1)


def _scores(clip: Clip, images: Images, weights: Tensor) -> Tensor:
    """Return the cosine similarity of each image to each class, `[N, C]`."""
    return _finite(embed_images(clip, images)) @ weights.T


def _accuracy_among(most: int, scores: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose label `[N]` is among the classes that score highest, of `scores[N, C]`."""
    best = scores.topk(min(most, scores.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(dim=1).float().mean())


def _finite(embeddings: Tensor) -> Tensor:
    """Return `embeddings` as they are; `StageFault` if the model was trained to NaN, which is of no class."""
    if not torch.isfinite(embeddings).all():
        raise StageFault("the model's embeddings are not finite: it was trained to pieces; lower a learning rate")
    return embeddings
