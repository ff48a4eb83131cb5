"""From YAML text to plain values, event by event: no recursion, nothing constructed, and every limit met at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import yaml
from pydantic import JsonValue

from ubt.config.dotted_paths import DEEPEST, JsonObject
from ubt.config.strict import LARGEST_WHOLE, number_in

MOST_VALUES = 200_000
"""Most values and keys in a document, aliases written out: ten thousand configurations of ten settings."""

_CONSTANTS: dict[str, JsonValue] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_TAGS = "tag:yaml.org,2002:"
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}
"""Tag → what a scalar that bears it must be; texts, lists and mappings bear theirs too."""
_INFINITE = (float("inf"), float("-inf"))
_MERGE = "<<"


class Refused(ValueError):
    """Something that YAML or JSON allows and this package does not."""


TOO_DEEP = f"is nested more than {DEEPEST} levels deep"


@dataclass
class _Open:
    """A list or mapping whose end has not been read yet."""

    value: list[JsonValue] | JsonObject
    anchor: str | None
    start: int
    """Values read before it."""
    key: str | None = None
    """Of a mapping: the key whose value is read next."""
    places: dict[str, str] = field(default_factory=dict)
    """Of a mapping: key → where it stands."""
    merging: bool = False
    """Of a mapping: what is read next is put under it."""
    merged: list[JsonObject] = field(default_factory=list)
    """Of a mapping: what `<<` puts under it, the strongest first."""

    def finished(self) -> JsonValue:
        """Return the value, with what is merged under it."""
        if not isinstance(self.value, dict) or not self.merged:
            return self.value
        under: JsonObject = {}
        for part in reversed(self.merged):
            under |= part
        return under | self.value


def values_in(text: str) -> JsonValue:
    """Return the one document of a YAML text, built from its events: no recursion, and every limit is met at once."""
    root: list[JsonValue] = []
    parts, anchors, total = [_Open(root, None, 0)], dict[str, tuple[JsonValue, int]](), 0
    documents = 0
    for event in _events(text):
        match event:
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise _refused(event, "a second document begins here; one file holds one")
                continue
            case yaml.ScalarEvent():
                value, count, anchor = _scalar(event, as_key=_expects_key(parts[-1])), 1, event.anchor
            case yaml.AliasEvent():
                anchor = None
                value, count = _of_alias(event, anchors, parts)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                is_list = isinstance(event, yaml.SequenceStartEvent)
                _check_collection(event, "seq" if is_list else "map", parts)
                parts.append(_Open([] if is_list else {}, event.anchor, total))
                total += 1
                continue
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                part = parts.pop()
                value, count, anchor = part.finished(), total - part.start, part.anchor
                total -= count
            case _:
                continue
        total += count
        if total > MOST_VALUES:
            raise _refused(event, f"there are more than {MOST_VALUES:,} values by here, aliases written out")
        if anchor is not None:
            anchors[anchor] = value, count
        _put(parts[-1], value, event)
    return root[0] if root else None


def _events(text: str) -> Iterator[Any]:
    return cast("Iterator[Any]", yaml.parse(text, Loader=_loader()))


@cache
def _loader() -> Any:  # noqa: ANN401 — PyYAML has no type for it
    """Return the loader written in C if PyYAML was built with it: it is ten times as fast."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _expects_key(part: _Open) -> bool:
    return isinstance(part.value, dict) and part.key is None


def _check_collection(event: Any, name: str, parts: list[_Open]) -> None:  # noqa: ANN401
    if event.tag is not None and event.tag not in (_TAGS + name, "!"):
        raise _foreign_tag(event)
    if len(parts) > DEEPEST:
        raise _refused(event, TOO_DEEP)
    if _expects_key(parts[-1]):
        raise _refused(event, "a key is a name, no list and no mapping")


def _put(part: _Open, value: JsonValue, event: Any) -> None:  # noqa: ANN401
    """Add a value, or the key of the next one, to a list or mapping."""
    if isinstance(part.value, list):
        part.value.append(value)
    elif part.key is not None:
        if part.merging:
            part.merged += _mergeable(value, event)
        else:
            part.value[part.key] = value
        part.key, part.merging = None, False
    elif not isinstance(value, str):
        raise _refused(event, "a key is a name")
    elif value == _MERGE and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
        part.key, part.merging = value, True
    elif value in part.places:
        raise Refused(f"`{value}` is given twice: at {part.places[value]}, and again at {_place(event)}")
    else:
        part.key, part.places[value] = value, _place(event)


def _mergeable(value: JsonValue, event: Any) -> list[JsonObject]:  # noqa: ANN401
    found = value if isinstance(value, list) else [value]
    mappings = [one for one in found if isinstance(one, dict)]
    if len(mappings) < len(found):
        raise _refused(event, f"`{_MERGE}` merges a mapping, or a list of mappings")
    return mappings


def _of_alias(event: Any, anchors: dict[str, tuple[JsonValue, int]], parts: list[_Open]) -> tuple[JsonValue, int]:  # noqa: ANN401
    """Return what an alias stands for, and how many values that is."""
    if any(part.anchor == event.anchor for part in parts):
        raise _refused(event, f"`*{event.anchor}` stands within `&{event.anchor}`, which would contain itself")
    if event.anchor not in anchors:
        raise _refused(event, f"there is no `&{event.anchor}` before `*{event.anchor}`")
    return anchors[event.anchor]


def _scalar(event: Any, as_key: bool) -> JsonValue:  # noqa: ANN401
    """Return a single value; a key is the text that is written there."""
    text: str = event.value
    check_text(text, event)
    tag = str(event.tag or "")
    if as_key or tag in ("!", f"{_TAGS}str") or (not tag and not event.implicit[0]):
        return text
    name = tag.removeprefix(_TAGS)
    if tag and (name == tag or name not in _PLAIN):
        raise _foreign_tag(event)
    value = _resolved(text, event)
    if tag and (not isinstance(value, _PLAIN[name]) or (isinstance(value, bool) and name != "bool")):
        raise _refused(event, f"`{text}` is no `!!{name}`")
    return value


def _resolved(text: str, event: Any) -> JsonValue:  # noqa: ANN401
    """Return what text without quotes stands for."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    number = number_in(text)
    if number is None:
        return text
    if abs(number) > LARGEST_WHOLE and (isinstance(number, int) or text.lstrip("+-").isdigit() or number in _INFINITE):
        raise _refused(event, "this number is too large")
    return number


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def check_text(text: str, event: Any = None) -> None:  # noqa: ANN401
    """Raise `Refused` for characters that no file name and no terminal takes."""
    if found := _NO_TEXT.search(text):
        what = "a NUL character" if found[0] == "\0" else "bytes or escapes that are no Unicode text"
        raise _refused(event, f"holds {what}") if event else Refused(f"holds {what}")


def _foreign_tag(event: Any) -> Refused:  # noqa: ANN401
    tag = str(event.tag).replace(_TAGS, "!!")
    return _refused(event, f"the tag `{tag}` is not allowed: values are texts, numbers, lists and mappings")


def _refused(event: Any, message: str) -> Refused:  # noqa: ANN401
    return Refused(f"{_place(event)}: {message}")


def _place(event: Any) -> str:  # noqa: ANN401
    mark = event.start_mark
    return f"line {mark.line + 1}, column {mark.column + 1}"
