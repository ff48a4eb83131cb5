"""Dotted paths (`defense.suspicious_ratio`) into nested JSON objects, used by search spaces and `--set`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import yaml
from pydantic import BaseModel, JsonValue

from ubt.common.errors import Problem, UserError
from ubt.config.shapes import Shape

JsonObject = dict[str, JsonValue]


def get_path(tree: Mapping[str, JsonValue], path: str) -> JsonValue:
    """Return the value at `path`.

    Raises:
        KeyError: if a part of the path does not exist.
    """
    node: JsonValue = dict(tree)
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            raise KeyError(path)
        node = node[part]
    return node


def set_path(
    tree: Mapping[str, JsonValue], path: str, value: JsonValue, model: type[BaseModel] | None = None
) -> JsonObject:
    """Return a copy of `tree` with `value` at `path`; objects on the way are copied, or created if missing.

    With the `model` that the tree is of, a bare name on the way stands for the object of that `kind`, and one that is
    missing for the default's.

    Raises:
        UserError: if the path leads through something that is not an object.
    """
    return _set(tree, path, value, Shape(model), path)


def _set(tree: Mapping[str, JsonValue], path: str, value: JsonValue, shape: Shape, whole: str) -> JsonObject:
    head, _, rest = path.partition(".")
    copy = dict(tree)
    if not rest:
        copy[head] = value
        return copy
    part = shape.part(head, tree)
    child = part.spelt_out(copy.get(head))
    child = {} if child is None else child
    if not isinstance(child, dict):
        raise UserError(Problem(whole, f"`{head}` is a single value, it has no fields", given=child))
    copy[head] = _set(child, rest, value, part, whole)
    return copy


def parse_assignment(text: str) -> tuple[str, JsonValue]:
    """Split `path=value` as given to `--set`; the value is read as YAML (`0.1`, `true`, `[1, 2]`, `banana`).

    Raises:
        UserError: if there is no `=`, no path, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(Problem("--set", "needs PATH=VALUE", given=text, advice="e.g. defense.overfit_epochs=3"))
    try:
        return path.strip(), cast(JsonValue, yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise UserError(Problem(f"--set {path}", "the value is not YAML", given=value)) from error


def difference(tree: Mapping[str, JsonValue], base: Mapping[str, JsonValue], prefix: str = "") -> JsonObject:
    """Return `{path: value in tree}` for every leaf in which `tree` differs from `base`."""
    found: JsonObject = {}
    for name, value in tree.items():
        path, other = f"{prefix}{name}", base.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found |= difference(value, other, f"{path}.")
        elif name not in base or value != other:
            found[path] = value
    return found
