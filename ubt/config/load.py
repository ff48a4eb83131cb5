"""From plain values to a typed configuration, with every mistake of a file reported at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from pydantic import BaseModel, JsonValue, ValidationError

from ubt.common.errors import Problem, UserError

Model = TypeVar("Model", bound=BaseModel)
LISTED = "`ubt schema` lists the fields there are"
_MISSING = object()
FEW_FIELDS = 6
"""An object with more fields has them looked up, not listed in a message."""


def validate(model: type[Model], tree: Mapping[str, JsonValue], source: str) -> Model:
    """Check `tree` against `model`.

    Raises:
        UserError: with one problem for each mistake, each naming `source` and the dotted path.
    """
    if not isinstance(tree, Mapping):  # of a file that somebody has changed
        raise UserError(Problem(source, "must be an object with fields", tree))
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        items = [cast("Mapping[str, object]", item) for item in error.errors(include_url=False)]
        raise UserError([_problem(item, tree, model, source) for item in items if not _follows(item, items)]) from error


def _follows(item: Mapping[str, object], items: Sequence[Mapping[str, object]]) -> bool:
    """Tell whether a mistake follows from others: a list is too short when what is in it cannot be used."""
    place = cast("tuple[str | int, ...]", item["loc"])
    inside = [
        other
        for other in items
        if other is not item and cast("tuple[str | int, ...]", other["loc"])[: len(place)] == place
    ]
    return item["type"] == "too_short" and bool(inside)


def _problem(item: Mapping[str, object], tree: Mapping[str, JsonValue], model: type[BaseModel], source: str) -> Problem:
    kind, given = str(item["type"]), item.get("input")
    location = cast("tuple[str | int, ...]", item["loc"])
    path = _as_written(location, tree, missing=kind == "missing")
    where = f"{source}: {path}" if path else source
    context = cast("Mapping[str, object]", item.get("ctx") or {})
    tag = str(context.get("discriminator")).strip("'")
    match kind:
        case "extra_forbidden":
            problem = Problem(where, "unknown field", given, advice=_nearest(location, tree, model))
        case "unknown_kind":
            problem = replace(cast(Problem, context["problem"]), where=f"{where}.{context['tag']}")
        case "union_tag_invalid":
            problem = Problem(f"{where}.{tag}", f"unknown; allowed: {context['expected_tags']}", context["tag"])
        case "union_tag_not_found":
            problem = Problem(f"{where}.{tag}", "is required: it says which one is meant")
        case "literal_error":
            problem = Problem(where, f"unknown; allowed: {context['expected']}", given)
        case "missing":
            problem = Problem(where, "is required")
        case _:
            problem = Problem(where, str(item["msg"]).removeprefix("Value error, "), given, _how_to_write(kind, given))
    return problem


def _how_to_write(kind: str, given: object) -> str:
    """Return how a value is written that was taken for another type; "" where that is no trouble."""
    if kind in ("int_parsing", "float_parsing") and re.search(r"\d", str(given)):
        return "numbers are decimal: 3, 0.5, 1e-5"
    if kind == "string_type" and isinstance(given, int | float):
        return "text that looks like something else stands in quotes"
    return ""


def _as_written(location: tuple[str | int, ...], tree: Mapping[str, JsonValue], missing: bool) -> str:
    """Return the dotted path as the user wrote it: pydantic's own names of union members are left out."""
    parts: list[str] = []
    node: object = tree
    for position, part in enumerate(location):
        found = _child(node, part)
        if found is _MISSING and not (missing and position == len(location) - 1):
            continue  # a name that only pydantic knows
        node = found
        parts.append(str(part))
    return ".".join(parts)


def _child(node: object, part: str | int) -> object:
    if isinstance(node, Mapping):
        return node.get(part, _MISSING)
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    return _MISSING


def _nearest(location: tuple[str | int, ...], tree: Mapping[str, JsonValue], model: type[BaseModel]) -> str:
    fields = _fields(location[:-1], tree, model)
    if close := difflib.get_close_matches(str(location[-1]), fields, n=1):
        return f"did you mean `{close[0]}`?"
    if "kind" in fields and len(fields) <= FEW_FIELDS:
        kind = _at(location[:-1], tree, "kind")
        settings = ", ".join(f"`{name}`" for name in fields if name != "kind")
        return f"`{kind}` has {settings or 'no settings'}; {LISTED}"
    return LISTED


def _at(location: tuple[str | int, ...], tree: Mapping[str, JsonValue], name: str) -> object:
    """Return a field of the object at pydantic's location."""
    node: object = tree
    for part in location:
        node = node if _child(node, part) is _MISSING else _child(node, part)
    return _child(node, name)


def _fields(location: tuple[str | int, ...], tree: Mapping[str, JsonValue], model: type[BaseModel]) -> list[str]:
    """Return the fields that the object at pydantic's location may have, going by the `kind`s that `tree` gives."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    node, given = schema, cast(object, tree)
    for part in location:
        if _child(given, part) is _MISSING:
            continue  # pydantic's name of a union's member
        given = _child(given, part)
        inside = node.get("items") or node.get("additionalProperties") or {}
        node = node.get("properties", {}).get(part, inside)
        node = _resolved(node if isinstance(node, dict) else {}, given, definitions)
    return list(node.get("properties", {}))


def _resolved(node: dict[str, Any], given: object, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema that a node of a JSON schema stands for, by reference or by the tag in what was given."""
    union = next((one for one in (node, *node.get("anyOf", ())) if "discriminator" in one), None)
    if union and isinstance(given, Mapping):
        discriminator = union["discriminator"]
        node = {"$ref": discriminator["mapping"].get(given.get(discriminator["propertyName"]), "")}
    reference = next((one["$ref"] for one in (node, *node.get("anyOf", ())) if one.get("$ref")), None)
    found: dict[str, Any] = definitions.get(reference.rpartition("/")[2], {}) if reference else node
    return found
