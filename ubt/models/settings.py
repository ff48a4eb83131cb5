"""A model as configured, and open_clip's names and image sizes, read from its files: planning loads no torch."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import Field, model_validator

from ubt.config import Config


class ModelSettings(Config):
    """The clean model: an open_clip architecture, with weights or trained from nothing."""

    name: str = "tiny-rn"
    """A model name of open_clip (`RN50`, `ViT-B-32`, …) or `tiny-rn`, the embedded one."""
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

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [bool(self.pretrained), bool(self.checkpoint), self.random_weights]
        if sum(given) > 1:
            raise ValueError("give one of `pretrained`, `checkpoint` and `random_weights`, not several")
        return self

    @property
    def trained_here(self) -> bool:
        """Return whether the clean model is to be trained by the `pretrain` stage."""
        return not (self.pretrained or self.checkpoint or self.random_weights)


@cache
def model_files() -> dict[str, Path]:
    """Return the file that describes each architecture: open_clip's, and `tiny-rn`."""
    spec = find_spec("open_clip")
    assert spec is not None, "open_clip_torch is a dependency of this package"  # noqa: S101
    assert spec.origin is not None  # noqa: S101
    files = Path(spec.origin).with_name("model_configs").glob("*.json")
    return {path.stem: path for path in [*files, Path(__file__).with_name("tiny-rn.json")]}


@cache
def model_config(name: str) -> dict[str, Any]:
    """Return how open_clip describes an architecture: `embed_dim`, `vision_cfg`, `text_cfg` and more."""
    return cast("dict[str, Any]", json.loads(model_files()[name].read_text(encoding="utf-8")))


def image_size_px(name: str) -> int:
    """Return the side of the images that a model of this name looks at."""
    size = model_config(name)["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])
