"""From a model's settings to a `Clip`: open_clip's architectures, and weights from wherever they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from ubt.common.errors import Problem, UserError
from ubt.common.hashing import derive
from ubt.models.activation import LABELS, activation_of
from ubt.models.checkpoints import check_finite, load_weights
from ubt.models.checks import check_model
from ubt.models.clip import Clip, between_start_and_end
from ubt.models.settings import HF_HUB, LOCAL_DIR, ModelSettings, model_config
from ubt.models.text_length import can_be_cut
from ubt.models.weight_files import Activation, activation_in

open_clip.add_model_config(Path(__file__).with_name("tiny-rn.json"))


def build_clip(settings: ModelSettings, seed: int, device: torch.device, weights: bool = True) -> Clip:
    """Return the model in evaluation mode: pretrained, from a checkpoint, or with random weights by `seed`.

    Without `weights` nothing is fetched or read: the same network with random ones, to take those of an artifact.

    Raises:
        UserError: if the name or tag is unknown, or the weights cannot be fetched or do not fit.
    """
    if weights:
        check_model(settings)
    activation = activation_of(settings)
    check_pretrained_tag(settings, activation)
    with torch.random.fork_rng(devices=[]):  # open_clip initialises from the global generator
        torch.manual_seed(derive(seed, "weights", LOCAL_DIR if settings.folder else settings.name))
        net = _create(settings, activation, weights)
    if weights and settings.weights_file:
        load_weights(net, settings.weights_file)
    net = net.to(device).to(memory_format=torch.channels_last)  # a third faster, on CPUs too
    if settings.text_positions == "used" and not can_be_cut(net):
        advice = "leave it out: this tower attends to, or is read at, places that depend on its full length"
        message = "the text tower of this model needs all of its positions"
        raise UserError(Problem("victim.model.text_positions", message, settings.label, advice))
    visual = cast(nn.Module, net.visual)
    size = cast("int | tuple[int, int]", visual.image_size)
    with _fetched(settings, "the tokenizer"):
        tokenizer = open_clip.get_tokenizer(settings.name)
    return Clip(
        net=net.eval(),
        tokenize=_tokenize(tokenizer),
        tokenizer=_identity(tokenizer),
        image_size_px=size if isinstance(size, int) else size[0],
        mean=tuple(getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD),
        device=device,
        precision=settings.precision,
        token_text=_token_text(tokenizer),
        words=_words(tokenizer),
        padding=int(getattr(getattr(tokenizer, "tokenizer", None), "pad_token_id", None) or 0),
        name=settings.name,
        activation=activation,
        cut_text=settings.text_positions == "used",
    )


def check_pretrained_tag(settings: ModelSettings, activation: Activation) -> None:
    """Refuse a tag of weights that open_clip does not have for this model, or that were trained otherwise.

    Raises:
        UserError: with the tags there are, or the activation that the weights want.
    """
    if not settings.pretrained:
        return
    tags = open_clip.list_pretrained_tags_by_model(settings.name)
    if settings.pretrained not in tags:
        allowed = ", ".join(tags) or "none: give a `checkpoint`"
        raise UserError(Problem("victim.model.pretrained", f"unknown tag; allowed: {allowed}", settings.pretrained))
    wanted = activation_in(open_clip.get_pretrained_cfg(settings.name, settings.pretrained))
    named = activation_in(open_clip.get_model_config(settings.name))  # some tags leave to the name what it says
    if activation not in {wanted, named if named == "quickgelu" else wanted}:
        message = f"these weights were trained with {LABELS[wanted]}, the model computes with {LABELS[activation]}"
        where = "victim.model.activation"
        raise UserError(Problem(where, message, settings.activation, advice=f"say `activation: {wanted}`"))


def _create(settings: ModelSettings, activation: Activation, weights: bool) -> nn.Module:
    """Return the network: with published weights if `weights` says so and there are any, else with random ones."""
    given: dict[str, Any] = {"force_quick_gelu": activation == "quickgelu", "pretrained_text": False}
    text = model_config(settings.name)["text_cfg"]
    if settings.folder and text.get("hf_model_name") and (settings.folder / _TOWER_FILE).is_file():
        given["text_cfg"] = {**text, "hf_model_name": str(settings.folder), "hf_model_pretrained": False}
    published = weights and not (settings.random_weights or settings.checkpoint or settings.folder)
    if published and (settings.pretrained or settings.name.startswith(HF_HUB)):
        with _fetched(settings, "the weights"):
            net = open_clip.create_model(settings.name, settings.pretrained, require_pretrained=True, **given)
        check_finite(net.state_dict(), settings.label)
        return cast(nn.Module, net)
    if settings.pretrained:  # the tag's pixel means are wanted, and open_clip would fetch its weights with them
        tag = open_clip.get_pretrained_cfg(settings.name, settings.pretrained)
        given["force_preprocess_cfg"] = {"mean": tag["mean"], "std": tag["std"]}
    with _fetched(settings, "the description of its text tower"):
        net = cast(nn.Module, open_clip.create_model(settings.name, load_weights=False, **given))
    for weight in getattr(net, "text_decoder", nn.Module()).parameters():
        nn.init.zeros_(weight)  # CoCa's has weights that open_clip leaves as the memory was; no embedding needs it
    return net


_TOWER_FILE = "config.json"
"""Describes a text tower of `transformers` in the folder of a model, so that it need not be fetched from the hub."""


@contextmanager
def _fetched(settings: ModelSettings, what: str) -> Iterator[None]:
    """Turn what a hub's client raises without a network, or for what it does not have, into a `UserError`."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        text = " ".join(str(error).split())[:300]
        advice = "fetch it once on a machine with a network, or give `victim.model.checkpoint` or a `local-dir:` folder"
        where = f"victim.model: {settings.label}"
        raise UserError(Problem(where, f"{what} cannot be fetched: {text}", advice=advice)) from error


def _tokenize(tokenizer: Callable[[list[str]], Tensor]) -> Callable[[Sequence[str]], Tensor]:
    def tokenize(captions: Sequence[str]) -> Tensor:
        return tokenizer(list(captions))

    return tokenize


def _identity(tokenizer: object) -> str:
    """Return what open_clip's own tokenizer depends on; nothing for others, which files of theirs may change."""
    if not isinstance(tokenizer, SimpleTokenizer) or type(tokenizer) is not SimpleTokenizer:
        return ""
    cleaned, reduced = (getattr(tokenizer, name) for name in ("clean_fn", "reduction_fn"))
    names = [getattr(function, "__name__", "") for function in (cleaned, reduced) if function is not None]
    return " ".join(["open_clip", open_clip.__version__, str(tokenizer.context_length), *names])


class _Decoder(Protocol):
    def decode(self, tokens: list[int], /) -> str: ...


def _token_text(tokenizer: object) -> Callable[[int], str]:
    """Return what decodes single tokens; open_clip's wrappers of other tokenizers leave that to what they wrap."""
    decoder = cast(_Decoder, getattr(tokenizer, "tokenizer", tokenizer))

    def token_text(token: int) -> str:
        return decoder.decode([token])

    return token_text


def _words(tokenizer: object) -> Callable[[Tensor], Tensor]:
    """Return what tells words from other tokens: tokenizers of `transformers` say which ones are special."""
    wrapped: Any = getattr(tokenizer, "tokenizer", None)
    if wrapped is None:
        return between_start_and_end
    special = torch.tensor(sorted({*wrapped.all_special_ids, wrapped.pad_token_id or 0} - {wrapped.unk_token_id}))
    return lambda tokens: ~torch.isin(tokens, special)


def check_weights(model: ModelSettings, poisoned: Path | None) -> Clip:
    """Build the clean model, load what a study names, the checkpoint of a `poisoned` model included, and return it.

    Done before a sweep starts, so that a mistake is met once and not in every worker.

    Raises:
        UserError: if weights cannot be fetched or read, or do not fit the model.
    """
    clip = build_clip(model, seed=0, device=torch.device("cpu"))
    if poisoned:
        load_weights(clip.net, poisoned)
    return clip
