"""Numbers and truth values that are taken for nothing else: `yes` is not 1, and 1 is not `true`.

pydantic's own strict mode would also refuse a list for a tuple, text for a path, and 3.0 for 3; its lax one takes
`true` for 1, and `" 1_000 "` for a thousand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

LARGEST_WHOLE = 2**63 - 1
"""Largest whole number, and −1 − this the least: what libraries take for a seed or a count."""

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def number_in(text: str) -> int | float | None:
    """Return the number that text is written as; None if it is none.

    Numbers are decimal ones: `3`, `-0.5`, `.5`, `1e-5`. Not so `0x10`, `1_000`, `010`, ` 1 `, `inf`. A whole number of
    more digits than any that is allowed is returned as a float.
    """
    if _WHOLE.fullmatch(text):
        return int(text) if len(text) <= len(str(LARGEST_WHOLE)) + 1 else float(text)
    return float(text) if _DECIMAL.fullmatch(text) else None


def strict_types(schema: CoreSchema) -> CoreSchema:
    """Return a schema in which whole numbers, numbers and truth values are taken for nothing else."""
    return cast(CoreSchema, _strict(cast("dict[str, Any]", schema)))


_INSIDE = ("schema", "fields", "items_schema", "values_schema", "keys_schema", "extras_schema", "definitions")
"""Where a schema holds others, beside a union's choices."""


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    if (before := _BEFORE.get(schema["type"])) and not schema.get("strict"):
        return _after(before, {**schema, "strict": True})
    choices = schema.get("choices")
    if schema["type"] == "union" and {one["type"] for one in schema["choices"]} == {"int", "float"}:
        return _after(_number, {**schema, "choices": [_alone(one) for one in schema["choices"]]})
    inside: dict[str, Any] = {name: _each(schema[name], _strict) for name in _INSIDE if name in schema}
    if isinstance(choices, list):
        inside["choices"] = [(_alone(one[0]), *one[1:]) if isinstance(one, tuple) else _alone(one) for one in choices]
    return {**schema, **inside}


def _alone(choice: dict[str, Any]) -> dict[str, Any]:
    """Return one schema of a union: text is left to others of it."""
    return {**choice, "strict": True} if choice["type"] in _BEFORE else _strict(choice)


def _each(held: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:  # noqa: ANN401
    """Return a schema, a list of schemas, or a mapping to schemas, each changed."""
    if isinstance(held, list):
        return [change(one) for one in held]
    if isinstance(held, dict) and not isinstance(held.get("type"), str):
        return {name: change(one) if isinstance(one, dict) else one for name, one in held.items()}
    return change(held) if isinstance(held, dict) else held


def _after(before: Callable[[Any], Any], schema: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", core_schema.no_info_before_validator_function(before, cast(CoreSchema, schema)))


def _number(given: object) -> object:
    """Return a number as it is, and text that is one as that."""
    if isinstance(given, str):
        number = number_in(given)
        if number is None:
            raise PydanticKnownError("float_parsing")
        return number
    if isinstance(given, bool):
        raise PydanticKnownError("float_type")
    if isinstance(given, int) and abs(given) > LARGEST_WHOLE:
        raise _too_large()
    return given


def _whole(given: object) -> object:
    """Return a whole number as an `int`, also if it was written as 3.0 or as text."""
    if isinstance(given, str):
        number = number_in(given)
        if number is None:
            raise PydanticKnownError("int_parsing")
        given = number
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    elif isinstance(given, float):
        raise PydanticKnownError("int_from_float" if given - given == 0 else "finite_number")
    if isinstance(given, int) and abs(given) > LARGEST_WHOLE:
        raise _too_large()
    return given


def _too_large() -> PydanticCustomError:
    return PydanticCustomError("too_large", "Input should be a number of at most 63 bits")


def _truth(given: object) -> object:
    """Return a truth value, also if it was written as text."""
    return _TRUTH.get(given.lower(), given) if isinstance(given, str) else given


_BEFORE: dict[str, Callable[[Any], Any]] = {"int": _whole, "float": _number, "bool": _truth}
