"""Class names, what else classes are called, and prompt templates: from text files, or ImageNet's by a short name."""

from __future__ import annotations

import difflib
import importlib.util
import re
import runpy
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ubt.common.errors import Problem

IMAGENET = "imagenet"
TEMPLATES = {"openai": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}


def read_classes(source: str, problems: list[Problem]) -> tuple[str, ...]:
    """Return the class names in a text file, one a line, or ImageNet's for `imagenet`.

    Adds to `problems` what cannot be read, empty lines, names given twice (also if only case, spaces or the form of
    their Unicode tell them apart), and numbers that are names of another class than the one they count, since labels
    may be either.
    """
    if source == IMAGENET:
        return tuple(_open_clip()["IMAGENET_CLASSNAMES"])  # holds two names twice; labels by index are safe
    names = _read_lines(source, "class", problems)
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        where = f"{source}: line {index + 1}"
        if not name:
            problems.append(Problem(where, "is empty; every line names one class"))
        elif (form := same_name(name)) in first:
            line = first[form] + 1
            different = (
                "" if names[line - 1] == name else f", written {names[line - 1]!a}: nobody could tell them apart"
            )
            problems.append(Problem(where, f"`{name}` is already the class of line {line}{different}"))
        elif name.isdecimal() and int(name) != index:
            problems.append(Problem(where, f"`{name}` as the name of class {index} could be taken for an index"))
        first.setdefault(same_name(name), index)
    return names


def same_name(name: str) -> str:
    """Return what is equal for names that only case, spaces or the form of their Unicode tell apart."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


_WNID = re.compile(r"n[0-9]{8}")


def read_synsets(
    source: Path | None, classes_source: str, classes: Sequence[str], problems: list[Problem]
) -> dict[str, int]:
    """Return class indices by what classes are called beside their names: ImageNet's ids (`n01440764`), or others.

    Each line of the file is such a name, a space, and the class by its name or index. Several names are separated by
    commas, as in ImageNet's LOC_synset_mapping.txt; lines of other classes are left out. Without a file, ImageNet's
    own classes have their ids, which count them in alphabetical order. Adds to `problems` what cannot be read, and
    what is there twice.
    """
    if source is None:
        return {wnid: index for index, wnid in enumerate(_wnids())} if classes_source == IMAGENET else {}
    indices: dict[str, int] = {}
    first: dict[int, int] = {}
    for number, line in enumerate(_read_lines(str(source), "name and its class", problems), start=1):
        name, _, called = line.partition(" ")
        words = [called, *called.split(",")]
        meant = {index for index in (class_index(word, classes) for word in words) if index is not None}
        if name in indices or len(meant) > 1:
            message = f"`{name}` is there twice" if name in indices else "several classes are called so"
            problems.append(Problem(f"{source}: line {number}", message, line))
        for index in meant:
            indices[name] = index
            if not called.strip().isdecimal() and first.setdefault(index, number) != number:
                message = f"is class {index}, as is line {first[index]}"  # ImageNet has two cranes
                advice = "if both are meant, write the class's index instead of its name"
                problems.append(Problem(f"{source}: line {number}", message, line, advice))
    return indices


def is_wnid(name: str) -> bool:
    """Return whether a name is one of WordNet's ids, as ImageNet's folders are called."""
    return _WNID.fullmatch(name) is not None


def class_index(name: str, classes: Sequence[str]) -> int | None:
    """Return the one class that is called so, or counted so, but for case, spaces, `_` and the form of its Unicode."""
    by_name = _by_name(tuple(classes)).get(_loose(name))
    if by_name is not None:
        return by_name if by_name >= 0 else None
    return int(name) if name.strip().isdecimal() and int(name) < len(classes) else None


@cache
def _by_name(classes: tuple[str, ...]) -> dict[str, int]:
    """Return the index of each name; -1 where several classes have it."""
    indices: dict[str, int] = {}
    for index, name in enumerate(classes):
        indices[_loose(name)] = -1 if _loose(name) in indices else index
    return indices


def _loose(name: str) -> str:
    return same_name(name.replace("_", " "))


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


@cache
def _wnids() -> tuple[str, ...]:
    """Return the ids of ImageNet's 1,000 classes, from a list that comes with timm, which open_clip needs."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("timm is not installed")
    return tuple(Path(package.origin).with_name("data").joinpath("_info", "imagenet_synsets.txt").read_text().split())


def nearest_class(name: str, classes: Sequence[str]) -> str:
    """Return what to do about a label that no class is called: the class that may be meant, if one reads alike."""
    if is_wnid(name):
        return "give a file that says which class it is: `synsets`; or ImageNet's own classes: `classes: imagenet`"
    close = difflib.get_close_matches(name, classes, n=1)
    return f"did you mean `{close[0]}`?" if close else "give a line of `classes`, or its index from 0"
