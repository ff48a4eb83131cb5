"""open_clip's model names and image sizes, read from its files: planning must not wait for torch."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ubt.errors import Problem, UserError
from ubt.victim import ModelSettings


@cache
def model_files() -> dict[str, Path]:
    """Return the file that describes each architecture: open_clip's, and `tiny-rn`."""
    spec = find_spec("open_clip")
    assert spec is not None, "open_clip_torch is a dependency of this package"  # noqa: S101
    assert spec.origin is not None  # noqa: S101
    files = Path(spec.origin).with_name("model_configs").glob("*.json")
    return {path.stem: path for path in [*files, Path(__file__).with_name("tiny-rn.json")]}


def check_model_name(settings: ModelSettings) -> None:
    """Refuse a name that open_clip does not have, and a checkpoint that is not there.

    Raises:
        UserError: with the nearest names.
    """
    problems = []
    if settings.name not in model_files():
        near = difflib.get_close_matches(settings.name, model_files(), n=3, cutoff=0.4)
        advice = f"nearest: {', '.join(near)}" if near else "e.g. tiny-rn, RN50, ViT-B-32"
        problems.append(Problem("victim.model.name", "open_clip has no such model", settings.name, advice))
    if settings.checkpoint and not settings.checkpoint.is_file():
        problems.append(Problem("victim.model.checkpoint", "there is no such file", str(settings.checkpoint)))
    if problems:
        raise UserError(problems)


def image_size_px(name: str) -> int:
    """Return the side of the images that a model of this name looks at."""
    size = json.loads(model_files()[name].read_text(encoding="utf-8"))["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])
