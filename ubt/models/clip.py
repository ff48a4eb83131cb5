"""A CLIP model as the stages use it: images and tokens in, unit vectors out; and the device it is computed on."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ubt.common.errors import NotFinite, Problem, UserError
from ubt.common.progress import beat
from ubt.data.base import Images, PairSource
from ubt.models.micro_batches import by_parts
from ubt.models.text_length import encode_cut, longest
from ubt.models.tokens import TokenSource
from ubt.models.weight_files import Activation


def pick_device(gpus: float) -> torch.device:
    """Return the device of a trial that is given `gpus` GPUs: CUDA, or the CPU if there are none for it.

    Raises:
        UserError: if torch sees no GPU where there is to be one: what takes minutes there would take days here.
    """
    if gpus and not torch.cuda.is_available():
        advice = "`ubt doctor` says what torch sees; `--set resources.gpus_per_trial=0` computes on the CPU"
        raise UserError(Problem("resources.gpus_per_trial", "torch sees no GPU", gpus, advice))
    return torch.device("cuda" if gpus else "cpu")


def device_kind(device: torch.device, cpu: str, threads: int) -> str:
    """Return the kind of device, on which bits depend: the GPU's name, or the CPU's, torch's instructions and threads.

    Example:
        >>> device_kind(torch.device("cpu"), "some CPU", 2).split(", ")[::2]
        ['some CPU', '2 threads']
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread{'' if threads == 1 else 's'}"


def use_threads(threads: int) -> None:
    """Compute with `threads` CPU threads; a reused worker would otherwise keep those of its last trial."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context that runs in bfloat16 if `precision` says so.

    "auto" is float32 here: where it is to be more, the study has said it, for a result's key must not depend on the
    device that happens to be there.
    """
    if precision != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of memory on the device since `reset_peak_memory`, or this process's on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # noqa: PLC0415 — Unix only, and so is the CPU figure

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_bytes(device: torch.device) -> int:
    """Return how much memory a GPU has; 0 of a CPU, whose memory is everybody's."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0


def reset_peak_memory(device: torch.device) -> None:
    """Start counting the device's peak memory anew (a CPU process's peak cannot be reset)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def between_start_and_end(tokens: Tensor) -> Tensor:
    """Return which of `tokens[N, L]` of open_clip's own vocabulary are words of the caption, `[N, L]` bool.

    They lie between the start and the end of text, which has the highest number of the vocabulary.
    """
    positions = torch.arange(tokens.shape[1])
    return (positions > 0) & (positions < tokens.argmax(dim=1)[:, None])


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
    words: Callable[[Tensor], Tensor] = between_start_and_end
    """Tokens `[N, L]` → which are words of the caption, `[N, L]` bool: no start, end or padding."""
    tokenizer: str = ""
    """What equal captions' tokens depend on beside them; empty if that is not known, so that none are kept on disk."""
    padding: int = 0
    """The token that captions are filled up with."""
    name: str = ""
    """What open_clip calls the architecture."""
    activation: Activation = "gelu"
    """What it computes with, for any name: open_clip builds the same with `force_quick_gelu`."""
    cut_text: bool = False
    """Captions are looked at as far as the longest of their batch goes."""
    micro_batch_size: int | None = None
    """Images or captions that training remembers at a time, with the gradient of the whole batch; None: all of it."""

    def encode_images(self, images: Images | Tensor) -> Tensor:
        """Return unit embeddings `[N, D]` float32 of `images[N, H, W, 3]` uint8, wherever they are."""
        return by_parts(self._encode_images, images, self.micro_batch_size, self.net)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return unit embeddings `[N, D]` float32 of `tokens[N, L]` int64."""
        return by_parts(self._encode_tokens, tokens, self.micro_batch_size, self.net)

    def _encode_images(self, images: Images | Tensor) -> Tensor:
        beat()
        with autocast(self.device, self.precision):
            features = self.net.encode_image(self._pixels(images))  # type: ignore[operator]
        return functional.normalize(features.float(), dim=-1)

    def _encode_tokens(self, tokens: Tensor) -> Tensor:
        beat()
        if self.cut_text:
            tokens = tokens[:, : longest(self.net, tokens)]
        there = tokens.to(self.device, non_blocking=True)
        with autocast(self.device, self.precision):
            features = encode_cut(self.net, there) if self.cut_text else self.net.encode_text(there)  # type: ignore[operator]
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

    def on_device(self, images: Images | Tensor) -> Tensor:
        """Return `images[N, H, W, 3]` uint8 on the device; they may share the memory of what is given.

        To a GPU they go through pinned memory, of which torch keeps what it has used, so that the copy waits for
        nothing and its memory is not asked for anew.
        """
        if isinstance(images, Tensor):
            return images.to(self.device)
        if self.device.type == "cuda":
            pinned = torch.empty(images.shape, dtype=torch.uint8, pin_memory=True)
            np.copyto(pinned.numpy(), images)
            return pinned.to(self.device, non_blocking=True)
        contiguous = images.flags.c_contiguous and images.flags.writeable
        return torch.from_numpy(images if contiguous else np.array(images, order="C"))

    def _pixels(self, images: Images | Tensor) -> Tensor:
        """Return normalised pixels `[N, 3, H, W]` float32 on the device, channels last as they come."""
        pixels = self.on_device(images).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std


def same_state(one: State, other: State) -> bool:
    """Return whether two states are equal, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def digest_of_state(state: State) -> str:
    """Return a fingerprint of a state's names, shapes, types and bits."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_finite(weights: State, net: nn.Module, what: str) -> None:
    """Refuse weights of which some are NaN or infinite. Buffers are not looked at: a mask may well be infinite.

    Raises:
        NotFinite: naming some of them.
    """
    parameters = {name for name, _ in net.named_parameters()}
    broken = [name for name in weights if name in parameters and not torch.isfinite(weights[name]).all()]
    if broken:
        some = ", ".join(broken[:3]) + (", …" if len(broken) > 3 else "")
        raise NotFinite(
            f"{what} has weights that are NaN or infinite, in {len(broken)} of {len(parameters)} tensors ({some}): "
            "a checkpoint is damaged then, a training has diverged",
            len(broken),
        )


@torch.no_grad()
def embed_images(clip: Clip, images: Images, batch_size: int = 256) -> Tensor:
    """Return unit embeddings `[N, D]` float32 on the CPU of `images[N, H, W, 3]` uint8, without gradients."""
    return torch.cat([clip.encode_images(images[i : i + batch_size]).cpu() for i in range(0, len(images), batch_size)])


@torch.no_grad()
def embed_tokens(clip: Clip, tokens: TokenSource, batch_size: int = 256) -> Tensor:
    """Return unit embeddings `[N, D]` float32 on the CPU of the tokens of N captions, without gradients."""
    starts = range(0, max(1, len(tokens)), batch_size)
    return torch.cat([clip.encode_tokens(tokens[start : start + batch_size]).cpu() for start in starts])


_IMAGES = 1024
"""Images that are read at a time."""
_CAPTIONS = 16_384
"""Captions among which equal ones are looked for; their embeddings are in memory together."""


def pair_similarities(clip: Clip, pairs: PairSource, tokens: TokenSource, indices: NDArray[np.int64]) -> Tensor:
    """Return the similarity of each chosen pair, `[S]` float32 in [−1, 1], on the CPU.

    `tokens` are the captions of all N pairs, `indices[S]` the chosen ones. Equal captions are embedded once:
    data sets with captions from templates repeat them.
    """
    return torch.cat([_block_similarities(clip, pairs, tokens, block) for block in _blocks(indices, _CAPTIONS)])


def embed_pair_images(clip: Clip, pairs: PairSource, indices: NDArray[np.int64]) -> Tensor:
    """Return unit embeddings `[S, D]` float32 on the CPU of the chosen pairs' images, without gradients."""
    return torch.cat([embed_images(clip, pairs.take(block)) for block in _blocks(indices, _IMAGES)])


def _blocks(indices: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _block_similarities(clip: Clip, pairs: PairSource, tokens: TokenSource, indices: NDArray[np.int64]) -> Tensor:
    captions, caption_of_pair = torch.unique(tokens[indices], dim=0, return_inverse=True)
    texts = embed_tokens(clip, captions)[caption_of_pair]
    return (embed_pair_images(clip, pairs, indices) * texts).sum(dim=1)
