"""What every training stage shares: losses, batches, optimizers, schedules, and their exact continuation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from ubt.common.errors import StageFault
from ubt.common.hashing import numpy_generator
from ubt.data.base import PairSource
from ubt.methods.feeding import Indices, fed
from ubt.methods.losses import clip_loss
from ubt.models.clip import Clip
from ubt.models.tokens import TokenSource

LOGIT_SCALE_MAX = math.log(100)
"""CLIP clips its logit scale at 100 (Radford et al., 2021, section 2.5)."""


def batches(count: int, batch_size: int, seed: int, *purpose: str | int) -> list[Indices]:
    """Return one epoch of index batches in an order fixed by seed and purpose; a last odd batch is dropped.

    Fewer than `batch_size` indices make one batch.
    """
    order = numpy_generator(seed, *purpose).permutation(count)
    whole = max(batch_size, count - count % batch_size)
    return [order[start : start + batch_size] for start in range(0, min(whole, count), batch_size)]


def token_embeddings(net: nn.Module) -> list[nn.Embedding]:
    """Return what a model turns tokens into vectors with: of open_clip's own text towers, and of transformers'."""
    named = [module for name, module in net.named_modules() if name.endswith("token_embedding")]
    inner: Any = getattr(getattr(net, "text", None), "transformer", None)
    if not named and hasattr(inner, "get_input_embeddings"):
        named = [inner.get_input_embeddings()]
    return [cast(nn.Embedding, module) for module in named]


class Optimizer:
    """AdamW, with the token embedding left to `SparseAdam`.

    A batch uses a few of some 50,000 rows; updating all of them costs as much as the rest of the step. Biases
    and gains are not decayed, nor is the token embedding, whose unused rows would otherwise fade.
    """

    def __init__(
        self,
        net: nn.Module,
        learning_rate: float,
        weight_decay: float = 0.0,
        train_token_embedding: bool = True,
    ) -> None:
        embeddings = token_embeddings(net)
        apart = {id(embedding.weight) for embedding in embeddings}
        weights = [weight for weight in net.parameters() if weight.requires_grad and id(weight) not in apart]
        groups = [
            {"params": [w for w in weights if w.ndim >= 2], "weight_decay": weight_decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate)]
        for embedding in embeddings:
            embedding.weight.requires_grad_(train_token_embedding)
            embedding.sparse = train_token_embedding
            if train_token_embedding:
                self._parts.append(torch.optim.SparseAdam([embedding.weight], lr=learning_rate))

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this learning rate from the next step on."""
        for group in (group for part in self._parts for group in part.param_groups):
            group["lr"] = learning_rate

    def warmup_then_cosine(self, warmup_steps: int, total_steps: int) -> Callable[[], None]:
        """Let the learning rate rise linearly, then fall to zero along a cosine (Loshchilov & Hutter, 2017).

        Returns what is to be called after each step.
        """
        schedules = [_warmup_then_cosine(part, warmup_steps, total_steps) for part in self._parts]

        def advance() -> None:
            for schedule in schedules:
                schedule.step()

        return advance

    def step(self, loss: Tensor) -> None:
        """Go one step down the gradient of `loss` (a scalar)."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.update()

    def update(self) -> None:
        """Move the weights by the gradients that they have."""
        for part in self._parts:
            part.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return moments and step counts as named tensors on the CPU."""
        return {
            f"{number}.{index}.{name}": torch.as_tensor(value).detach().to("cpu", copy=True)
            for number, part in enumerate(self._parts)
            for index, entry in part.state_dict()["state"].items()
            for name, value in entry.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned, so that training continues bit for bit."""
        states: list[dict[int, dict[str, Tensor | int]]] = [{} for _ in self._parts]
        for path, value in tensors.items():
            number, index, name = path.split(".")
            # SparseAdam counts steps in Python: with a tensor its powers would be float32, and other bits.
            counted = name == "step" and isinstance(self._parts[int(number)], torch.optim.SparseAdam)
            states[int(number)].setdefault(int(index), {})[name] = int(value) if counted else value
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _warmup_then_cosine(part: torch.optim.Optimizer, warmup_steps: int, total_steps: int) -> LRScheduler:
    cosine = CosineAnnealingLR(part, max(1, total_steps - warmup_steps))
    if not warmup_steps:
        return cosine
    rise = LinearLR(part, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1)
    return SequentialLR(part, [rise, cosine], milestones=[warmup_steps])


class Descent:
    """Steps down losses, each of which is looked at when it is known.

    On a GPU that is a step late: to ask for a number at once would wait for all that the GPU has been given to do, and
    leave it idle until it is given more. So a loss that is not finite is met within one step, and no result is made.
    """

    def __init__(self, clip: Clip, optimizer: Optimizer, where: str, late: bool | None = None) -> None:
        """Take steps of a model's `optimizer`; `where` they are is said of a loss that is not finite."""
        self._clip = clip
        self._optimizer = optimizer
        self._where = where
        self._late = clip.device.type == "cuda" if late is None else late
        self._waiting: Tensor | None = None
        self._values: list[float] = []

    def step(self, loss: Tensor) -> None:
        """Take one step down `loss` (a scalar).

        Raises:
            StageFault: if it is not finite, and nothing is learnt from it; or, where that is known a step late, if the
                one before it was not.
        """
        if not self._late:
            self._look_at(loss.detach())
        self._optimizer.step(loss)
        with torch.no_grad():
            self._clip.net.logit_scale.clamp_(max=LOGIT_SCALE_MAX)  # type: ignore[operator]
        if self._late:
            waiting, self._waiting = self._waiting, loss.detach()
            if waiting is not None:
                self._look_at(waiting)

    def losses(self) -> list[float]:
        """Return the losses of all steps; `StageFault` if the last one is not finite."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._look_at(waiting)
        return self._values

    def _look_at(self, loss: Tensor) -> None:
        value = float(loss)
        if not math.isfinite(value):
            raise StageFault(f"the loss is {value} at {self._where}; a lower learning rate may help")
        self._values.append(value)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained on pairs from start to end."""

    epochs: int
    learning_rate: float
    batch_size: int
    weight_decay: float
    warmup_steps: int
    micro_batch_size: int | None = None
    """Pairs that gradients are computed for at a time; all of a batch if None."""


def train_on_pairs(
    clip: Clip,
    pairs: PairSource,
    tokens: TokenSource,
    recipe: Recipe,
    seed: int,
    purpose: str,
    optimizer: Optimizer | None = None,
    done: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train `clip` in place with CLIP's loss, yielding (epoch from 1, mean loss) after each epoch.

    `tokens` are the captions of `pairs`. With the `optimizer` and the weights as they were after `done` epochs,
    the others have the bits that they have in one go. Raises `StageFault` if the loss is not finite.
    """
    optimizer = optimizer or Optimizer(clip.net, recipe.learning_rate, recipe.weight_decay)
    clip = replace(clip, micro_batch_size=recipe.micro_batch_size)
    steps = len(batches(len(pairs), recipe.batch_size, seed))
    total_steps = recipe.epochs * steps
    advance = optimizer.warmup_then_cosine(min(recipe.warmup_steps, total_steps // 4), total_steps)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Detected call of `lr_scheduler.step"
        )  # the steps were taken by another process
        for _ in range(done * steps):  # each learning rate follows from the one before it, so that its bits do
            advance()
    for epoch in range(done + 1, recipe.epochs + 1):
        clip.net.train()
        descent = Descent(clip, optimizer, f"{purpose} epoch {epoch}")
        for chosen, images in fed(pairs, batches(len(pairs), recipe.batch_size, seed, purpose, "order", epoch)):
            embedded = clip.encode_images(images), clip.encode_tokens(tokens[chosen])
            descent.step(clip_loss(*embedded, clip.logit_scale))
            advance()
        clip.net.eval()
        yield epoch, float(np.mean(descent.losses()))
