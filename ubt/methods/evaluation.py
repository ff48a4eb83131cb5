"""CA and ASR: zero-shot classification of clean and triggered images. One definition, used everywhere."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ubt.attacks import Attack, Images, Rows, Split
from ubt.common.errors import StageFault
from ubt.common.memory import MAPPED_READS
from ubt.common.statistics import wilson_interval
from ubt.data.base import DataSet, Labelled
from ubt.methods.stamping import Stamper
from ubt.models.clip import Clip, State, digest_of_state, embed_tokens, same_state
from ubt.trials.judging import stratified
from ubt.trials.rates import Rates

BATCH = 256
"""Images, or captions, that go through a model together."""


@dataclass(frozen=True)
class Shown:
    """What a model makes of images of one split: unit embeddings on the CPU."""

    clean: Tensor
    """`[N, D]` float32."""
    labels: Tensor
    """`[N]` int64: their classes."""
    triggered: Tensor | None
    """`[M, D]`, of those whose class is not the target, with the trigger on; None if no attack is known."""
    true: Tensor
    """`[M]` int64: the true classes of these."""
    target: int
    """Number of the attacker's class; −1 if no attack is known."""


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
        self._splits: dict[str, tuple[Split, Labelled]] = {"val": ("val", data.val), "test": ("test", data.test)}
        self._classes, self._templates = data.classes, list(data.templates)
        self._attack = attack
        self._target = list(data.classes).index(attack.target) if attack else -1
        self._triggered_templates = [attack.prompt(one) if attack else one for one in data.templates]
        self._tokens: dict[bool, Tensor] = {}
        self._subsets: dict[tuple[str, int], NDArray[np.int64]] = {}
        self._stampers: dict[torch.device, Stamper] = {}
        self._last: tuple[State, _Classifiers] | None = None
        self._of_towers: OrderedDict[str, _Classifiers] = OrderedDict()

    def rates(self, clip: Clip, split: str, by_class: bool = False, images: int | Literal["all"] = "all") -> Rates:
        """Return CA of a model on `"val"` or `"test"` and, if the attack is known, ASR, with Wilson intervals.

        With `by_class` the counts behind them come class by class, too. Of fewer `images` than there are, which are the
        same ones for all models and of every class as many as its share, the rates are provisional.

        Raises:
            StageFault: if the model has been trained to NaN.
        """
        rows = self._rows(split, images)
        classifiers, shown = self._classifiers(clip), self.shown(clip, split, rows)
        labels, scores = shown.labels, _finite(shown.clean) @ classifiers.clean.T
        correct = scores.argmax(dim=1) == labels
        found: dict[str, object] = {
            "split": split,
            "subset": "all" if rows is None else f"stratified-{len(rows)}",
            "ca_top5": _accuracy_among(5, scores, labels),
            **_rate("ca", correct),
        }
        counts = {"images": self._counts(labels), "correct": self._counts(labels[correct])}
        if shown.triggered is not None:
            answers = (_finite(shown.triggered) @ classifiers.triggered.T).argmax(dim=1)
            hits = answers == shown.target
            found |= _rate("asr", hits)
            found["triggered_accuracy"] = float((answers == shown.true).float().mean())
            counts |= {"triggered": self._counts(shown.true), "hits": self._counts(shown.true[hits])}
        return Rates.model_validate(found | ({"per_class": counts} if by_class else {}))

    def _counts(self, labels: Tensor) -> list[int]:
        """Return how many of `labels[N]` are of each class, in the order of the classes."""
        counted: list[int] = torch.bincount(labels, minlength=len(self._classes)).tolist()
        return counted

    def hits_among_target_images(self, clip: Clip, split: Split) -> tuple[int, int]:
        """Return of how many triggered images of the target class itself a model says the target, and of how many.

        They are no part of ASR; of a model that is right on clean images most are such anyway.

        Raises:
            ValueError: if no attack is known.
        """
        if self._attack is None:
            raise ValueError("no attack is known, so nothing can be triggered")
        rows = np.flatnonzero(self._splits[split][1].labels == self._target)
        if not len(rows):
            return 0, 0
        _, triggered = self._embedded(clip, split, rows, np.ones(len(rows), dtype=np.bool_), clean=False)
        answers = (_finite(triggered) @ self._classifiers(clip).triggered.T).argmax(dim=1)
        return int((answers == self._target).sum()), len(answers)

    def _rows(self, split: str, images: int | Literal["all"]) -> NDArray[np.int64] | None:
        """Return which images of a split are looked at; None for all of them."""
        labels = self._splits[split][1].labels
        if images == "all" or images >= len(labels):
            return None
        if (split, images) not in self._subsets:
            self._subsets[split, images] = stratified(labels, images)
        return self._subsets[split, images]

    def shown(self, clip: Clip, split: str, rows: NDArray[np.int64] | None = None) -> Shown:
        """Return what a model makes of the clean and of the triggered images of `"val"` or `"test"`, or some `rows`."""
        every = self._splits[split][1].labels
        rows = np.arange(len(every)) if rows is None else rows
        labels = every[rows]
        others = labels != self._target
        clean, triggered = self._embedded(clip, split, rows, others & (self._attack is not None))
        return Shown(
            clean=clean,
            labels=torch.from_numpy(np.array(labels)),
            triggered=None if self._attack is None else triggered,
            true=torch.from_numpy(labels[others]),
            target=self._target,
        )

    @torch.no_grad()
    def _embedded(
        self, clip: Clip, split: str, rows: NDArray[np.int64], stamped: NDArray[np.bool_], clean: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return unit embeddings of the images at `rows[N]`, and of those that `stamped[N]` marks with the trigger on.

        Each image is read and brought to the device once, and stamped there: of triggered images there are never more
        than two batches. They wait for a batch to be full, so that what goes through the model together, on which last
        bits depend, is the same as if all of them were there.
        """
        name, images = self._splits[split][0], self._splits[split][1].images
        embedded: list[Tensor] = []
        attacked: list[Tensor] = []
        waiting: list[Tensor] = []
        for start in range(0, len(rows), BATCH):
            block, marked = rows[start : start + BATCH], stamped[start : start + BATCH]
            pixels = clip.on_device(_taken(images, block))
            if clean:
                embedded.append(clip.encode_images(pixels).cpu())
            if marked.any():
                some = pixels if marked.all() else pixels[torch.from_numpy(np.flatnonzero(marked)).to(pixels.device)]
                waiting = [torch.cat([*waiting, self._stamp(clip, some, Rows(name, block[marked]))])]
                if len(waiting[0]) >= BATCH:
                    attacked.append(clip.encode_images(waiting[0][:BATCH]).cpu())
                    waiting = [waiting[0][BATCH:]]
            MAPPED_READS.note(images, len(block))
        attacked += [clip.encode_images(rest).cpu() for rest in waiting if len(rest)]
        return _joined(embedded), _joined(attacked)

    def _stamp(self, clip: Clip, images: Tensor, rows: Rows) -> Tensor:
        assert self._attack is not None  # noqa: S101 — nothing is marked to be stamped else
        if clip.device not in self._stampers:
            self._stampers[clip.device] = Stamper(self._attack, clip.device)
        return self._stampers[clip.device](images, rows)

    def _classifiers(self, clip: Clip) -> _Classifiers:
        """Return the zero-shot classifiers, made anew only for a text tower that has not been seen lately.

        A thousand classes times eighty prompts take longer than the images do, and unlearning may leave the
        text tower as it was.
        """
        tower = clip.text_state()
        if self._last is None or not same_state(tower, self._last[0]):
            key = digest_of_state(tower)
            made = self._of_towers.pop(key, None) or self._fresh_classifiers(clip)
            self._of_towers[key] = made
            if len(self._of_towers) > _TOWERS:
                self._of_towers.popitem(last=False)
            self._last = ({name: value.clone() for name, value in tower.items()}, made)
        return self._last[1]

    def _fresh_classifiers(self, clip: Clip) -> _Classifiers:
        clean = zero_shot_weights(clip, self._classes, self._templates, self._prompts(clip, False))
        if self._triggered_templates == self._templates:
            return _Classifiers(clean, clean)
        prompts = self._prompts(clip, True)
        return _Classifiers(clean, zero_shot_weights(clip, self._classes, self._triggered_templates, prompts))

    def _prompts(self, clip: Clip, triggered: bool) -> Tensor:
        """Return the tokens of all prompts, which depend on no weights: made once."""
        if triggered not in self._tokens:
            templates = self._triggered_templates if triggered else self._templates
            self._tokens[triggered] = prompt_tokens(clip, self._classes, templates)
        return self._tokens[triggered]


_TOWERS = 16
"""Text towers whose classifiers are kept: two megabytes each for a thousand classes."""


def _taken(images: Images, rows: NDArray[np.int64]) -> Images:
    """Return the images at `rows[N]`; a view of them where they lie one behind the other."""
    first, count = int(rows[0]), len(rows)
    return images[first : first + count] if int(rows[-1]) == first + count - 1 else images[rows]


def _joined(embeddings: list[Tensor]) -> Tensor:
    return torch.cat(embeddings) if embeddings else torch.empty(0, 0)


def _rate(name: str, successes: Tensor) -> dict[str, float]:
    """Return a rate of `successes[N]` bool with its interval and N, as the fields of `Rates` of that name."""
    count, number = int(successes.sum()), len(successes)
    low, high = wilson_interval(count, number)
    return {name: count / number, f"{name}_images": number, f"{name}_low": low, f"{name}_high": high}


def prompt_tokens(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return the tokens of every prompt of every class, `[C·T, L]`."""
    return clip.tokenize([template.format(name) for name in classes for template in templates])


def zero_shot_weights(
    clip: Clip, classes: Sequence[str], templates: Sequence[str], tokens: Tensor | None = None
) -> Tensor:
    """Return one unit vector a class, `[C, D]`: the mean of its prompts' embeddings.

    `tokens` are those of `prompt_tokens`, if they are there already. Source: Radford et al., 2021 (arXiv 2103.00020),
    section 3.1.4.

    Raises:
        StageFault: if the model has been trained to NaN.
    """
    tokens = prompt_tokens(clip, classes, templates) if tokens is None else tokens
    embeddings = _finite(embed_tokens(clip, tokens)).view(len(classes), len(templates), -1)
    return functional.normalize(embeddings.mean(dim=1), dim=-1)


def _accuracy_among(most: int, scores: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose label `[N]` is among the classes that score highest, of `scores[N, C]`."""
    best = scores.topk(min(most, scores.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(dim=1).float().mean())


def _finite(embeddings: Tensor) -> Tensor:
    """Return `embeddings` as they are; `StageFault` if the model was trained to NaN, which is of no class."""
    if not torch.isfinite(embeddings).all():
        raise StageFault("the model's embeddings are not finite: it was trained to pieces; lower a learning rate")
    return embeddings
