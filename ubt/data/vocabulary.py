"""Class names and prompt templates: from a text file, or those of open_clip under a short name."""

from __future__ import annotations

import importlib.util
import runpy
from functools import cache
from pathlib import Path
from typing import Any

from ubt.common.errors import Problem

IMAGENET = "imagenet"
TEMPLATES = {"openai": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}


def read_classes(source: str, problems: list[Problem]) -> tuple[str, ...]:
    """Return the class names in a text file, one a line, or ImageNet's for `imagenet`.

    Adds to `problems` what cannot be read, empty lines, names given twice, and numbers that are names of
    another class than the one they count, since labels may be either.
    """
    if source == IMAGENET:
        return tuple(_open_clip()["IMAGENET_CLASSNAMES"])  # holds two names twice; labels by index are safe
    names = _read_lines(source, "class", problems)
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        where = f"{source}: line {index + 1}"
        if not name:
            problems.append(Problem(where, "is empty; every line names one class"))
        elif name in first:
            problems.append(Problem(where, f"`{name}` is already the class of line {first[name] + 1}"))
        elif name.isdecimal() and int(name) != index:
            problems.append(Problem(where, f"`{name}` as the name of class {index} could be taken for an index"))
        first.setdefault(name, index)
    return names


def read_templates(source: str, problems: list[Problem]) -> tuple[str, ...]:
    """Return the prompts in a text file, one a line, or open_clip's for `openai` and `simple`.

    Adds to `problems` what cannot be read and prompts without exactly one `{}`.
    """
    if source in TEMPLATES:
        return tuple(template("{}") for template in _open_clip()[TEMPLATES[source]])
    templates = _read_lines(source, "prompt", problems)
    for number, template in enumerate(templates, start=1):
        if "{}" not in template or any(brace in template.replace("{}", "", 1) for brace in "{}"):
            where = f"{source}: line {number}"
            problems.append(Problem(where, "needs one {} where the class goes, and no other braces", template))
    return templates


def vocabulary_files(classes: str, templates: str) -> list[Path]:
    """Return the files that the two settings name; the short names need none."""
    return [Path(classes)] * (classes != IMAGENET) + [Path(templates)] * (templates not in TEMPLATES)


def _read_lines(source: str, what: str, problems: list[Problem]) -> tuple[str, ...]:
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        known = IMAGENET if what == "class" else " or ".join(TEMPLATES)
        advice = f"give a text file in UTF-8 with one {what} a line, or {known}"
        problems.append(Problem(source, f"cannot be read: {error}", advice=advice))
        return ()
    if not text.strip():
        problems.append(Problem(source, f"is empty; it needs one {what} a line"))
        return ()
    return tuple(line.strip() for line in text.rstrip().split("\n"))


@cache
def _open_clip() -> dict[str, Any]:
    """Return open_clip's lists without its package, whose import takes seconds and loads torch."""
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("open_clip_torch is not installed")
    return runpy.run_path(str(Path(package.origin).with_name("zero_shot_metadata.py")))
