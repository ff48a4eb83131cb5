"""CA and ASR: zero-shot classification of clean and triggered images. One definition, used everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ubt.attacks import Attack, Images
from ubt.data.base import DataSet, Labelled
from ubt.errors import StageFault
from ubt.metrics import wilson_interval
from ubt.models.clip import Clip, State, embed_images, embed_tokens, same_state
from ubt.records import Rates


@dataclass(frozen=True)
class _Split:
    """Evaluation images of one split, made ready once."""

    clean: Labelled
    triggered: Images
    """`[M, H, W, 3]`: the images whose class is not the target, with the trigger on."""
    triggered_labels: Tensor
    """`[M]` int64: their true classes."""


class Evaluator:
    """Judges models on a data set under an attack.

    CA is the top-1 accuracy on clean images. ASR is, of the triggered images whose true class is *not* the
    target, the fraction classified as the target. Both kinds of images go through the same preprocessing.
    """

    def __init__(self, data: DataSet, attack: Attack) -> None:
        self._data = data
        self._target = list(data.classes).index(attack.target)
        self._last: tuple[State, Tensor] | None = None
        self._splits = {name: self._prepare(split, attack) for name, split in (("val", data.val), ("test", data.test))}

    def rates(self, clip: Clip, split: str) -> Rates:
        """Return CA and ASR of a model on `"val"` or `"test"`, with Wilson intervals.

        Raises:
            StageFault: if the model has been trained to NaN.
        """
        images = self._splits[split]
        weights = self._weights(clip)
        clean = _classify(clip, images.clean.images, weights)
        triggered = _classify(clip, images.triggered, weights)
        correct = int((clean == torch.from_numpy(images.clean.labels)).sum())
        hits = int((triggered == self._target).sum())
        ca_low, ca_high = wilson_interval(correct, len(clean))
        asr_low, asr_high = wilson_interval(hits, len(triggered))
        return Rates(
            ca=correct / len(clean),
            ca_images=len(clean),
            ca_low=ca_low,
            ca_high=ca_high,
            asr=hits / len(triggered),
            asr_images=len(triggered),
            asr_low=asr_low,
            asr_high=asr_high,
            triggered_accuracy=float((triggered == images.triggered_labels).float().mean()),
        )

    def _weights(self, clip: Clip) -> Tensor:
        """Return the zero-shot classifier, made anew only if the text tower is not the one of the last call.

        A thousand classes times eighty prompts take longer than the images do, and unlearning may leave the
        text tower as it was.
        """
        tower = clip.text_state()
        if self._last is None or not same_state(tower, self._last[0]):
            weights = zero_shot_weights(clip, self._data.classes, self._data.templates)
            self._last = ({name: value.clone() for name, value in tower.items()}, weights)
        return self._last[1]

    def _prepare(self, split: Labelled, attack: Attack) -> _Split:
        others = split.labels != self._target
        labels = torch.from_numpy(split.labels[others])
        return _Split(split, attack.stamp(split.images[others]), labels)


def zero_shot_weights(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return one unit vector a class, `[C, D]`: the mean of its prompts' embeddings.

    Source: Radford et al., 2021 (arXiv 2103.00020), section 3.1.4.

    Raises:
        StageFault: if the model has been trained to NaN.
    """
    prompts = [template.format(name) for name in classes for template in templates]
    embeddings = _finite(embed_tokens(clip, clip.tokenize(prompts))).view(len(classes), len(templates), -1)
    return functional.normalize(embeddings.mean(dim=1), dim=-1)


def _classify(clip: Clip, images: Images, weights: Tensor) -> Tensor:
    return (_finite(embed_images(clip, images)) @ weights.T).argmax(dim=1)


def _finite(embeddings: Tensor) -> Tensor:
    """Return `embeddings` as they are; `StageFault` if the model was trained to NaN, which is of no class."""
    if not torch.isfinite(embeddings).all():
        raise StageFault("the model's embeddings are not finite: it was trained to pieces; lower a learning rate")
    return embeddings
