"""A model as configured, and open_clip's names and image sizes, read from its files: planning loads no torch."""

from __future__ import annotations

import difflib
import json
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ubt.common.errors import Problem, UserError
from ubt.common.paths import is_file
from ubt.config import Config, is_as
from ubt.data.digests import Stamp, stamp
from ubt.models.weight_files import CONFIG_FILE, weights_in

LOCAL_DIR = "local-dir:"
"""Begins names of models that lie in a folder, as `open_clip.push_to_hf_hub` writes it."""
HF_HUB = "hf-hub:"
"""Begins names of models on the Hugging Face hub."""
_WHERE = "victim.model.name"


class ModelSettings(Config):
    """The clean model: an open_clip architecture, with weights or trained from nothing."""

    name: str = "tiny-rn"
    """A model name of open_clip (`RN50`, `ViT-B-32`, …) or `tiny-rn`, the embedded one; `local-dir:FOLDER` for a folder
    as `open_clip.push_to_hf_hub` writes it, with its weights; `hf-hub:OWNER/NAME` for such a one on the hub."""
    pretrained: str | None = None
    """Tag of published weights (`openai`, `laion2b_s34b_b79k`, …); they are downloaded."""
    checkpoint: Path | None = None
    """Weights of the clean model in a file: .safetensors, or .pt loaded without unpickling code."""
    random_weights: bool = False
    """Use untrained weights: to try a pipeline, never to measure a defense."""
    activation: Literal["auto", "gelu", "quickgelu"] = "auto"
    """What the network computes between its linear layers, which has to be what its weights were trained with. `auto`:
    as the tag, the checkpoint or the name says; where none does, the study has to."""
    precision: str = Field(default="auto", pattern="^(auto|float32|bfloat16)$")
    """`auto`: bfloat16 autocast in trials that are given GPUs, float32 in others."""
    text_positions: Literal["all", "used"] = Field(default="all", exclude_if=is_as("all"))
    """`used`: captions are looked at as far as the longest of their batch goes, which changes last bits alone (so it is
    part of keys) and takes a third of the time where captions are a dozen words. Text towers that attend backwards and
    are read at the end of text allow it, OpenAI's among them."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [bool(self.pretrained), bool(self.checkpoint), self.random_weights]
        if sum(given) > 1:
            raise ValueError("give one of `pretrained`, `checkpoint` and `random_weights`, not several")
        if self.pretrained and self.name.startswith((LOCAL_DIR, HF_HUB)):
            raise ValueError("`local-dir:` and `hf-hub:` names come with their weights: leave `pretrained` out")
        return self

    @property
    def trained_here(self) -> bool:
        """Return whether the clean model is to be trained by the `pretrain` stage."""
        return not (
            self.pretrained or self.checkpoint or self.random_weights or self.name.startswith((LOCAL_DIR, HF_HUB))
        )

    @property
    def label(self) -> str:
        """Return the name, with the tag if there is one, as messages say it."""
        return f"{self.name}/{self.pretrained}" if self.pretrained else self.name

    @property
    def folder(self) -> Path | None:
        """Return the folder that a `local-dir:` name stands for."""
        return Path(self.name.removeprefix(LOCAL_DIR)) if self.name.startswith(LOCAL_DIR) else None

    @property
    def weights_file(self) -> Path | None:
        """Return the file that the clean model's weights are in, if they are in one that the study names."""
        if self.checkpoint or self.random_weights or not self.folder:
            return self.checkpoint
        return weights_in(self.folder)

    @property
    def fetched(self) -> bool:
        """Return whether weights, tokenizer or description are fetched from elsewhere, if they are not here already."""
        return bool(self.pretrained) or self.name.startswith(HF_HUB) or needs_transformers(self.name)


@cache
def model_files() -> dict[str, Path]:
    """Return the file that describes each architecture: open_clip's, and `tiny-rn`."""
    spec = find_spec("open_clip")
    assert spec is not None, "open_clip_torch is a dependency of this package"  # noqa: S101
    assert spec.origin is not None  # noqa: S101
    files = Path(spec.origin).with_name("model_configs").glob("*.json")
    return {path.stem: path for path in [*files, Path(__file__).with_name("tiny-rn.json")]}


def model_config(name: str) -> dict[str, Any]:
    """Return how open_clip describes an architecture: `embed_dim`, `vision_cfg`, `text_cfg` and more.

    That of an `hf-hub:` name is fetched, once.

    Raises:
        UserError: if there is none, or it cannot be read or fetched.
    """
    if name.startswith(LOCAL_DIR):
        path = Path(name.removeprefix(LOCAL_DIR)) / CONFIG_FILE
        return _described(path, name, stamp(path) if is_file(path) else None)
    if name.startswith(HF_HUB):
        return _described(_of_hub(name), name, None)
    if name not in model_files():
        near = difflib.get_close_matches(name, model_files(), n=3, cutoff=0.4)
        advice = f"nearest: {', '.join(near)}" if near else f"e.g. tiny-rn, RN50, ViT-B-32, {LOCAL_DIR}FOLDER"
        raise UserError(Problem(_WHERE, "open_clip has no such model", name, advice))
    return _described(model_files()[name], name, None)


@lru_cache(maxsize=256)
def _described(path: Path, name: str, _written: Stamp | None) -> dict[str, Any]:
    """Return what a file describes; read once, and again when it is written anew."""
    advice = f"give a folder as `open_clip.push_to_hf_hub` writes it: {CONFIG_FILE} and weights"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        config: dict[str, Any] = tree if name in model_files() else tree["model_cfg"]
        if isinstance(config["vision_cfg"], dict) and isinstance(config["text_cfg"], dict) and config["embed_dim"]:
            return config
    except FileNotFoundError as error:
        raise UserError(Problem(_WHERE, f"has no {CONFIG_FILE}", name, advice)) from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        message = f"{path.name} does not describe a model: {type(error).__name__}: {error}"
        raise UserError(Problem(_WHERE, message, name, advice)) from error
    raise UserError(Problem(_WHERE, f"{path.name} does not describe a model", name, advice))


@cache
def _of_hub(name: str) -> Path:
    """Return the description of a model on the hub, from this machine's copy if there is one."""
    import huggingface_hub  # noqa: PLC0415 — half a second, only where such a name is used

    try:
        return Path(huggingface_hub.hf_hub_download(name.removeprefix(HF_HUB), CONFIG_FILE))
    except (OSError, ValueError) as error:  # what its clients raise without a network, and for names that there are not
        text = " ".join(str(error).split())[:300]
        advice = f"fetch it once on a machine with a network, and name the folder: `{LOCAL_DIR}FOLDER`"
        raise UserError(Problem(_WHERE, f"cannot be fetched: {text}", name, advice)) from error


def needs_transformers(name: str) -> bool:
    """Return whether a model's text tower or tokenizer comes from the `transformers` package."""
    text = model_config(name)["text_cfg"]
    named = any(text.get(field) for field in ("hf_model_name", "hf_tokenizer_name"))
    return named or (name in model_files() and "siglip" in name.lower())  # as `open_clip.get_tokenizer` decides


def image_size_px(name: str) -> int:
    """Return the side of the images that a model of this name looks at."""
    size = model_config(name)["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])
