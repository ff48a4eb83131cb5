"""What may stand where in the tree of a configuration, so that trees can be merged before they are validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticUndefined

from ubt.config.base import ByKind


@dataclass(frozen=True)
class PathKey:
    """Annotates the keys of a map that are dotted paths: `dict[Annotated[str, PathKey("victim", "defense")], …]`."""

    roots: tuple[str, ...]
    """What such a path may begin with."""

    def __init__(self, *roots: str) -> None:
        object.__setattr__(self, "roots", roots)


@dataclass(frozen=True)
class Shape:
    """What may stand at one place; by default nothing is known of it."""

    annotation: object = None
    """A configuration's class, or the type of a field."""
    by_kind: ByKind | None = None
    """The registry whose configurations may stand there."""
    default: object = None
    null_says: bool = False
    """Null says something there that leaving the field out does not."""

    def spelt_out(self, given: JsonValue) -> JsonValue:
        """Return what is given there with its kind said: a bare name as `{kind: name}`, as `ByKind.spelt_out`."""
        return self.by_kind.spelt_out(given, self.default) if self.by_kind else given

    def part(self, name: str, given: Mapping[str, JsonValue]) -> Shape:
        """Return the shape of a field of the object that is given there."""
        model = self.by_kind.model_of(given) if self.by_kind else self.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            return _shape_of_field(model, name)
        return _shape(get_args(model)[1]) if get_origin(model) is dict else NO_SHAPE

    def item(self) -> Shape:
        """Return the shape of the items of a list."""
        return _shape(get_args(self.annotation)[0]) if get_origin(self.annotation) in (list, tuple) else NO_SHAPE

    @cached_property
    def key_roots(self) -> tuple[str, ...]:
        """Return what the keys of a map begin with, if they are dotted paths; nothing if they are not."""
        if get_origin(self.annotation) is not dict:
            return ()
        marks = getattr(get_args(self.annotation)[0], "__metadata__", ())
        return next((mark.roots for mark in marks if isinstance(mark, PathKey)), ())

    @property
    def holds_paths(self) -> bool:
        """Tell whether the values of a map are maps of dotted paths themselves."""
        return get_origin(self.annotation) is dict and bool(_shape(get_args(self.annotation)[1]).key_roots)


NO_SHAPE = Shape()


@cache
def shape_of(model: type[BaseModel] | None) -> Shape:
    """Return the shape of what is a model's; the same object each time."""
    return Shape(model)


@cache
def _shape_of_field(model: type[BaseModel], name: str) -> Shape:
    """Return the shape of a class's field, worked out once: planning asks for some at every trial."""
    field = model.model_fields.get(name)
    return _shape(field.annotation, field.metadata, field.default) if field else NO_SHAPE


def _shape(annotation: object, metadata: Iterable[object] = (), default: object = None) -> Shape:
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _shape(arguments[0], (*arguments[1:], *metadata), default)
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in arguments if member is not NoneType]
        shape = _shape(members[0], metadata, default) if len(members) == 1 else NO_SHAPE
        nullable = len(members) < len(arguments) and default not in (None, PydanticUndefined)
        return replace(shape, null_says=True) if nullable else shape
    return Shape(annotation, next((one for one in metadata if isinstance(one, ByKind)), None), default)
