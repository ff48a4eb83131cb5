"""From a model's settings to a `Clip`: open_clip's architectures, and weights from wherever they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol, cast

import open_clip
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ubt.common.errors import Problem, UserError
from ubt.common.hashing import derive
from ubt.models.clip import Clip
from ubt.models.settings import ModelSettings, check_model_name

open_clip.add_model_config(Path(__file__).with_name("tiny-rn.json"))

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

_UNUSABLE = (
    *(OSError, EOFError, UnpicklingError, SafetensorError, RuntimeError, ValueError, LookupError, AssertionError),
    *(AttributeError, TypeError, StopIteration),  # a list, a single tensor, no tensors at all
)
"""What open_clip, torch and safetensors raise for files that are damaged, of another kind or for another model."""


def build_clip(settings: ModelSettings, seed: int, device: torch.device) -> Clip:
    """Return the model in evaluation mode: pretrained, from a checkpoint, or with random weights by `seed`.

    Raises:
        UserError: if the name or tag is unknown, or the weights cannot be fetched or do not fit.
    """
    check_model_name(settings)
    check_pretrained_tag(settings)
    with torch.random.fork_rng(devices=[]):  # open_clip initialises from the global generator
        torch.manual_seed(derive(seed, "weights", settings.name))
        net = _create(settings)
    if settings.checkpoint:
        load_weights(net, settings.checkpoint)
    net = net.to(device).to(memory_format=torch.channels_last)  # a third faster, on CPUs too
    visual = cast(nn.Module, net.visual)
    size = cast("int | tuple[int, int]", visual.image_size)
    tokenizer = open_clip.get_tokenizer(settings.name)
    return Clip(
        net=net.eval(),
        tokenize=_tokenize(tokenizer),
        image_size_px=size if isinstance(size, int) else size[0],
        mean=cast("tuple[float, ...]", getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN),
        std=cast("tuple[float, ...]", getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD),
        device=device,
        precision=settings.precision,
        token_text=_token_text(tokenizer),
    )


def check_pretrained_tag(settings: ModelSettings) -> None:
    """Refuse a tag of weights that open_clip does not have for this model.

    Raises:
        UserError: with the tags there are.
    """
    tags = open_clip.list_pretrained_tags_by_model(settings.name)
    if settings.pretrained and settings.pretrained not in tags:
        allowed = ", ".join(tags) or "none: give a `checkpoint`"
        raise UserError(Problem("victim.model.pretrained", f"unknown tag; allowed: {allowed}", settings.pretrained))


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a checkpoint of open_clip or OpenAI style (`state_dict`, `module.` prefixes) without unpickling code.

    Raises:
        UserError: if the file is missing, of another kind, damaged, or made for another model.
    """
    if path.suffix not in CHECKPOINT_SUFFIXES:
        raise UserError(Problem(str(path), f"unknown kind of checkpoint; allowed: {', '.join(CHECKPOINT_SUFFIXES)}"))
    try:
        open_clip.factory.load_checkpoint(net, str(path), weights_only=True)
    except FileNotFoundError as error:
        raise UserError(Problem(str(path), "there is no such checkpoint")) from error
    except _UNUSABLE as error:
        text = " ".join(str(error).split()).partition(". ")[0][:300]
        reason = text if " " in text else f"{type(error).__name__} {text}".strip()
        if isinstance(error, UnpicklingError):  # torch's own words advise to run whatever is in the file
            reason = "it holds more than plain tensors, and to unpickle that could run code"
        advice = "give weights of this model, as .safetensors or as a .pt file of plain tensors"
        raise UserError(Problem(str(path), f"cannot be loaded: {reason}", advice=advice)) from error


def _create(settings: ModelSettings) -> nn.Module:
    if not settings.pretrained:
        return cast(nn.Module, open_clip.create_model(settings.name, pretrained=None, load_weights=False))
    try:
        return cast(nn.Module, open_clip.create_model(settings.name, pretrained=settings.pretrained))
    except (OSError, RuntimeError) as error:  # what a hub client raises without a network
        advice = "fetch them once on a machine with a network, or give `victim.model.checkpoint`"
        where = f"victim.model: {settings.name}/{settings.pretrained}"
        raise UserError(Problem(where, f"the weights cannot be fetched: {error}", advice=advice)) from error


def _tokenize(tokenizer: Callable[[list[str]], Tensor]) -> Callable[[Sequence[str]], Tensor]:
    def tokenize(captions: Sequence[str]) -> Tensor:
        return tokenizer(list(captions))

    return tokenize


class _Decoder(Protocol):
    def decode(self, tokens: list[int], /) -> str: ...


def _token_text(tokenizer: object) -> Callable[[int], str]:
    """Return what decodes single tokens; open_clip's wrappers of other tokenizers leave that to what they wrap."""
    decoder = cast(_Decoder, getattr(tokenizer, "tokenizer", tokenizer))

    def token_text(token: int) -> str:
        return decoder.decode([token])

    return token_text


def check_weights(model: ModelSettings, poisoned: Path | None) -> None:
    """Build the clean model and load what a study names, the checkpoint of a `poisoned` model included.

    Done before a sweep starts, so that a mistake is met once and not in every worker.

    Raises:
        UserError: if weights cannot be fetched or read, or do not fit the model.
    """
    clip = build_clip(model, seed=0, device=torch.device("cpu"))
    if poisoned:
        load_weights(clip.net, poisoned)
