"""Augmented images and captions, as CleanCLIP compares each modality with (Bansal et al., ICCV 2023).

Images go through torchvision's policies. Captions go through two of the four operations of "Easy Data
Augmentation" (Wei & Zou, 2019, arXiv 1901.11196); the other two put in synonyms, which takes WordNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ubt.data.base import Images

ImagePolicy = Literal["auto", "rand", "trivial"]

_POLICIES: dict[ImagePolicy, Callable[[], Callable[[Tensor], Tensor]]] = {
    "auto": v2.AutoAugment,
    "rand": v2.RandAugment,
    "trivial": v2.TrivialAugmentWide,
}
"""AutoAugment (Cubuk et al., 2019), RandAugment (Cubuk et al., 2020), TrivialAugment (Müller & Hutter, 2021)."""


def augment_images(images: Images, policy: ImagePolicy, seed: int) -> Images:
    """Return `images[N, H, W, 3]` uint8, each changed by its own draw from the policy; same seed, same bits."""
    change = _POLICIES[policy]()
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(seed)
        changed = torch.stack([change(image) for image in pixels])
    return changed.permute(0, 2, 3, 1).contiguous().numpy()


def augment_captions(captions: Sequence[str], change_rate: float, rng: np.random.Generator) -> list[str]:
    """Return the captions, in each of which words are deleted or swapped, drawn anew for each caption."""
    return [_augment_caption(caption.split(), change_rate, rng) for caption in captions]


def _augment_caption(words: list[str], change_rate: float, rng: np.random.Generator) -> str:
    if len(words) < 2:
        return " ".join(words)
    changed = _delete(words, change_rate, rng) if rng.random() < 0.5 else _swap(words, change_rate, rng)
    return " ".join(changed)


def _delete(words: list[str], change_rate: float, rng: np.random.Generator) -> list[str]:
    """Return the words without some, each left out with the given probability; one always stays."""
    kept = np.flatnonzero(rng.random(len(words)) >= change_rate)
    if len(kept) == 0:
        kept = rng.integers(len(words), size=1)
    return [words[index] for index in kept]


def _swap(words: list[str], change_rate: float, rng: np.random.Generator) -> list[str]:
    """Return the words after `change_rate · words` swaps of two of them, but at least one."""
    changed = list(words)
    for _ in range(max(1, round(change_rate * len(words)))):
        one, other = rng.choice(len(words), size=2, replace=False)
        changed[one], changed[other] = changed[other], changed[one]
    return changed
