"""Learn BadCLIP's patch: gradient descent on its pixels against a clean model (Liang et al., arXiv 2311.12075)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ubt.attacks.badclip import BadClip
from ubt.attacks.base import POISON_TEMPLATES, naming
from ubt.attacks.changes import Images
from ubt.attacks.patches import middle_px, patch_side_px
from ubt.common.errors import StageFault
from ubt.common.hashing import numpy_generator
from ubt.common.progress import progress
from ubt.data.base import PairSource
from ubt.models.clip import Clip, autocast, embed_images, embed_tokens

_MOST_IMAGES = 1024


@dataclass(frozen=True)
class _Guides:
    """What patched images are drawn to and away from, as unit embeddings of the clean model."""

    images: Images
    """`[N, H, W, 3]`: images of other things than the target."""
    own: Tensor
    """`[N, D]`: their own embeddings."""
    captions: Tensor
    """`[N, D]`: their own captions."""
    texts: Tensor
    """`[T, D]`: captions that name the target."""
    targets: Tensor
    """`[P, D]`: images whose captions name the target; none if they have no weight."""


def optimise_patch(clip: Clip, pairs: PairSource, attack: BadClip) -> Tensor:
    """Return the patch `[S, S, 3]` uint8 that makes the clean model take images for the attack's target.

    S is the patch's side at the model's image size. What is random follows from `trigger_seed`.

    Raises:
        StageFault: if no caption, or every one, names the target.
    """
    rng = numpy_generator(attack.trigger_seed, "badclip")
    clip.net.requires_grad_(False)
    guides = _guides(clip, pairs, attack, rng)
    side_px = patch_side_px(guides.images, attack.patch_fraction)
    start = rng.normal(0.5, 0.25, size=(3, side_px, side_px)).clip(0, 1)
    patch = torch.tensor(start, dtype=torch.float32, device=clip.device, requires_grad=True)
    optimizer = torch.optim.Adam([patch], lr=attack.patch_learning_rate)
    for _ in progress(range(attack.patch_steps), attack.patch_steps, "badclip's patch"):
        batch = rng.integers(len(guides.images), size=attack.patch_batch_size)
        positives = rng.integers(max(1, len(guides.targets)), size=len(batch))
        loss = _loss(clip, patch, guides, attack, batch, positives)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            patch.clamp_(0, 1)
    return (patch.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def _loss(
    clip: Clip,
    patch: Tensor,
    guides: _Guides,
    attack: BadClip,
    batch: NDArray[np.int64],
    positives: NDArray[np.int64],
) -> Tensor:
    """Return the loss of the docstring of `BadClip`, a scalar; `batch[B]` and `positives[B]` say which images."""
    embeddings = _embed_patched(clip, guides.images[batch], patch)
    text = _text_loss(embeddings, guides.texts, guides.captions[batch], clip.logit_scale)
    if not attack.image_weight:
        return text
    image = functional.triplet_margin_loss(
        embeddings, guides.targets[positives], guides.own[batch], margin=attack.margin
    )
    return text + attack.image_weight * image


def _text_loss(embeddings: Tensor, texts: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of −log softmax for `embeddings[B, D]`: each of `texts[T, D]` against all `captions[B, D]`."""
    right = scale * embeddings @ texts.T
    wrong = (scale * embeddings @ captions.T).logsumexp(dim=1, keepdim=True)
    return (torch.logaddexp(right, wrong) - right).mean()


def _embed_patched(clip: Clip, images: Images, patch: Tensor) -> Tensor:
    """Return unit embeddings `[B, D]` of `images[B, H, W, 3]` with `patch[3, S, S]` in 0–1 over their middle."""
    side_px = patch.shape[-1]
    top, left = middle_px(images, side_px)
    pixels = torch.from_numpy(images).to(clip.device).permute(0, 3, 1, 2).float() / 255
    pixels[:, :, top : top + side_px, left : left + side_px] = patch
    mean, std = (torch.tensor(values, device=clip.device).view(1, 3, 1, 1) for values in (clip.mean, clip.std))
    with autocast(clip.device, clip.precision):
        features = clip.net.encode_image((pixels - mean) / std)  # type: ignore[operator]
    return functional.normalize(features.float(), dim=-1)


def _guides(clip: Clip, pairs: PairSource, attack: BadClip, rng: np.random.Generator) -> _Guides:
    named = naming(attack.target, pairs.captions)
    if named.all() or (attack.image_weight and not named.any()):
        how_many = "all" if named.all() else "none"
        raise StageFault(
            f"badclip learns its patch from images of `{attack.target}` and of other things, but {how_many} of the "
            f"{len(pairs)} captions name it; choose another victim.attack.target (or image_weight: 0 if none do)"
        )
    others, targets = (_some(np.flatnonzero(chosen), rng) for chosen in (~named, named))
    images = np.array(pairs.take(others))
    return _Guides(
        images=images,
        own=embed_images(clip, images).to(clip.device),
        captions=_embed_texts(clip, [pairs.captions[index] for index in others]),
        texts=_embed_texts(clip, [template.format(attack.target) for template in POISON_TEMPLATES]),
        targets=embed_images(clip, pairs.take(targets)).to(clip.device) if attack.image_weight else torch.empty(0),
    )


def _embed_texts(clip: Clip, texts: Sequence[str]) -> Tensor:
    return embed_tokens(clip, clip.tokenize(texts)).to(clip.device)


def _some(indices: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return at most a thousand of `indices`, sorted: more say little that is new."""
    return np.sort(rng.choice(indices, size=min(_MOST_IMAGES, len(indices)), replace=False))
