"""Dotted paths (`defense.suspicious_ratio`) into nested JSON objects, used by search spaces and `--set`.

A part of a path is a field, a name, or a number that counts the items of a list from 0. The keys of some maps have dots
themselves (`search.space`): where one that is there fits, the longest is meant, else all the rest is a new one. Quotes
say it where that does not: `search.space."defense.detector".low`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, JsonValue

from ubt.common.errors import Problem, UserError
from ubt.config.shapes import Shape, shape_of

JsonObject = dict[str, JsonValue]

DEEPEST = 64
"""Most levels of what is read from outside, and most parts of a path."""


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

    Example:
        >>> set_path({"seeds": [0, 1]}, "seeds.1", 7)
        {'seeds': [0, 7]}
        >>> set_path({"space": {"defense.kind": ["ubt"]}}, "space.defense.kind", ["abl"])
        {'space': {'defense.kind': ['abl']}}

    Raises:
        UserError: if the path leads through something that is not an object, or may mean several fields.
    """
    if path.count(".") > DEEPEST:
        raise UserError(Problem(path[:DEEPEST] + "…", f"a path has at most {DEEPEST} parts"))
    return _set(tree, path, value, shape_of(model), path)


def _set(tree: Mapping[str, JsonValue], path: str, value: JsonValue, shape: Shape, whole: str) -> JsonObject:
    head, rest = first_key(tree, path, shape, whole)
    copy = dict(tree)
    copy[head] = value if rest is None else _set_in(copy.get(head), head, rest, value, shape.part(head, tree), whole)
    return copy


def _set_in(child: JsonValue, name: str, rest: str, value: JsonValue, shape: Shape, whole: str) -> JsonValue:
    """Return what stands at `name`, with `value` at the path `rest` in it."""
    child = shape.spelt_out(child)
    child = {} if child is None else child
    if isinstance(child, list) and is_number(rest.partition(".")[0]):
        return _set_item(child, name, rest, value, shape, whole)
    if not isinstance(child, dict):
        raise UserError(Problem(whole, f"`{name}` is a single value, it has no fields", given=child))
    return _set(child, rest, value, shape, whole)


def _set_item(items: list[JsonValue], name: str, path: str, value: JsonValue, shape: Shape, whole: str) -> JsonValue:
    number, dot, rest = path.partition(".")
    if len(number) > len(str(len(items))) or int(number) >= len(items):
        raise UserError(Problem(whole, f"`{name}` has {len(items)} items, which are counted from 0", given=number))
    at, copy = int(number), list(items)
    copy[at] = _set_in(copy[at], f"{name}.{number}", rest, value, shape.item(), whole) if dot else value
    return copy


def is_number(part: str) -> bool:
    """Tell whether a part of a path counts items."""
    return part.isascii() and part.isdigit()


def first_key(
    tree: Mapping[str, JsonValue], path: str, shape: Shape | None = None, whole: str = ""
) -> tuple[str, str | None]:
    """Split off a path the key of `tree` that it begins with; None for the rest if there is none.

    Raises:
        UserError: if several keys may be meant, or a quote is not closed.
    """
    if path.startswith('"'):
        return _quoted_key(path, whole)
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        key = ".".join(parts[:end])
        if key in tree and (end == len(parts) or end == 1 or _leads_on(tree[key], parts[end], key, whole)):
            if end == 1 and shape is not None and shape.key_roots and end < len(parts):
                break  # a key with dots may be meant, not what this one holds
            return key, ".".join(parts[end:]) or None if end < len(parts) else None
    if shape is None or not shape.key_roots:
        return parts[0], ".".join(parts[1:]) if len(parts) > 1 else None
    return _new_key(parts, shape, whole)


def _quoted_key(path: str, whole: str) -> tuple[str, str | None]:
    key, closed, rest = path[1:].partition('"')
    if not closed or (rest and not rest.startswith(".")):
        raise UserError(Problem(whole, "a quote stands around a whole key", advice='e.g. search.space."defense.kind"'))
    return key, rest[1:] if rest else None


def _leads_on(value: JsonValue, part: str, key: str, whole: str) -> bool:
    """Tell whether a path goes on with `part` in what is at a `key` with dots; `UserError` if it may, or may not."""
    if isinstance(value, list) and is_number(part):
        return True
    if not isinstance(value, dict):
        return False
    if value and part not in value:
        message = f"may go on within `{key}`, which is there, or name a new key that begins like it"
        before = whole[: whole.rfind(f"{key}.{part}")]
        advice = f'put the key in quotes: {before}"{key}".{part} or {before}"{key}.{part}"'
        raise UserError(Problem(whole, message, advice=advice))
    return True


def _new_key(parts: list[str], shape: Shape, whole: str) -> tuple[str, str | None]:
    """Return the key of a map of dotted paths that is not there yet: all the rest, or as far as the next one begins."""
    if not shape.holds_paths:
        return ".".join(parts), None
    starts = [at for at, part in enumerate(parts) if at and part in shape.key_roots]
    if len(starts) > 1:
        raise UserError(
            Problem(whole, "where does its first key end?", advice='put keys in quotes: search.when."…"."…"')
        )
    if not starts:
        return ".".join(parts), None
    return ".".join(parts[: starts[0]]), ".".join(parts[starts[0] :])


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
