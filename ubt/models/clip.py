"""A CLIP model as the stages use it: uint8 images and token tensors in, unit vectors out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ubt.data.base import Images
from ubt.models.device import autocast

State = Mapping[str, Tensor]
"""Names → tensors of a model, parameters and buffers, on the CPU."""


@dataclass(frozen=True)
class Clip:
    """An open_clip network with what is needed to feed it."""

    net: nn.Module
    tokenize: Callable[[Sequence[str]], Tensor]
    """Captions → tokens `[N, L]` int64."""
    image_size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    precision: str = "auto"
    token_text: Callable[[int], str] = str
    """Token → its text; in open_clip's own vocabulary it ends with a blank where a word ends."""

    def encode_images(self, images: Images) -> Tensor:
        """Return unit embeddings `[N, D]` float32 of `images[N, H, W, 3]` uint8."""
        with autocast(self.device, self.precision):
            features = self.net.encode_image(self._pixels(images))  # type: ignore[operator]
        return functional.normalize(features.float(), dim=-1)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return unit embeddings `[N, D]` float32 of `tokens[N, L]` int64."""
        with autocast(self.device, self.precision):
            features = self.net.encode_text(tokens.to(self.device))  # type: ignore[operator]
        return functional.normalize(features.float(), dim=-1)

    @property
    def logit_scale(self) -> Tensor:
        """Return the learnt scale of logits, a positive scalar."""
        scale: Tensor = self.net.logit_scale  # type: ignore[assignment]
        return scale.exp()

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all weights and buffers, on the CPU."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.net.state_dict().items()}

    def text_state(self) -> State:
        """Return the tensors that text embeddings depend on, as they are (not copied)."""
        return {name: value for name, value in self.net.state_dict().items() if not name.startswith("visual.")}

    def with_state(self, state: State) -> Clip:
        """Return an independent model in evaluation mode with the weights of `state`."""
        net = copy.deepcopy(self.net)
        net.load_state_dict(dict(state))
        return replace(self, net=net.eval())

    def _pixels(self, images: Images) -> Tensor:
        """Return normalised pixels `[N, 3, H, W]` float32 on the device, channels last as they come."""
        pixels = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std


def same_state(one: State, other: State) -> bool:
    """Return whether two states are equal, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@torch.no_grad()
def embed_images(clip: Clip, images: Images, batch_size: int = 256) -> Tensor:
    """Return unit embeddings `[N, D]` float32 on the CPU of `images[N, H, W, 3]` uint8, without gradients."""
    return torch.cat([clip.encode_images(images[i : i + batch_size]).cpu() for i in range(0, len(images), batch_size)])


@torch.no_grad()
def embed_tokens(clip: Clip, tokens: Tensor, batch_size: int = 256) -> Tensor:
    """Return unit embeddings `[N, D]` float32 on the CPU of `tokens[N, L]`, without gradients."""
    return torch.cat([clip.encode_tokens(part).cpu() for part in torch.split(tokens, batch_size)])
