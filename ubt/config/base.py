"""The base of every configuration, and fields that hold one of a registry's configurations."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from itertools import zip_longest
from textwrap import dedent
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from ubt.common.errors import Problem, UserError
from ubt.common.registry import Registry
from ubt.config.strict import strict_types


def is_as(default: object) -> Callable[[object], bool]:
    """Return whether a value is `default`: `Field(default=…, exclude_if=is_as(…))` is of a field that came later.

    Where it has its default it is left out, so that the configurations of earlier records are the same.
    """
    return lambda value: value == default


class Config(BaseModel):
    """Frozen, strict about unknown fields and about what is a number, and finite: NaN is never a setting.

    A truth value is no number, and no number is a truth value. Text is a number if it is written as a decimal one is
    (`"1e-5"`), and a truth value if it is `true`, `yes`, `on` or their opposite.
    """

    newer: ClassVar[frozenset[str]] = frozenset()
    """Fields that came when results had been stored: where they have their defaults they are no part of keys, so that
    those results are still found. Those with `exclude_if` are left out of keys, too, and need not be named."""

    # A class is built when it is first used: a command uses a few of all that are registered. For the same reason
    # docstrings are not read with the class (`use_attribute_docstrings`), but by `descriptions`.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler, /) -> CoreSchema:
        """Return pydantic's schema, with numbers and truth values in it that are taken for nothing else."""
        return strict_types(handler(source))

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        """Return pydantic's JSON schema, with the descriptions of fields."""
        schema = handler(core)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in descriptions(cls).items():
            if text and name in properties:
                properties[name].setdefault("description", text)
        return schema

    @classmethod
    def may_lack(cls, field: str) -> bool:
        """Return whether settings that went into a key may be without a field, as it had its default."""
        return field in cls.newer or cls.model_fields[field].exclude_if is not None

    def as_json(self) -> dict[str, JsonValue]:
        """Return the configuration after coercion, as plain JSON values."""
        dumped: dict[str, JsonValue] = self.model_dump(mode="json")
        return dumped


@cache
def descriptions(model: type[Config]) -> dict[str, str]:
    """Return what the fields of a configuration are: of each what `Field` says, or the docstring below it, or ""."""
    written: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, Config) and one is not Config:
            written |= _docstrings_of_fields(one)
    return {name: field.description or written.get(name, "") for name, field in model.model_fields.items()}


def _docstrings_of_fields(model: type) -> dict[str, str]:
    try:
        source = dedent(inspect.getsource(model))
    except (OSError, TypeError):  # a class made at a prompt, or by a program
        return {}
    found: dict[str, str] = {}
    (made,) = ast.parse(source).body
    assert isinstance(made, ast.ClassDef)  # noqa: S101 — it is the source of a class
    for field, after in zip_longest(made.body, made.body[1:]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            said = text.value if isinstance(text, ast.Constant) else None
            found[field.target.id] = inspect.cleandoc(said) if isinstance(said, str) else ""
    return found


Function = str | Callable[..., Any]
"""A function, or its name as `module:function`, by which it is imported when it is called: planning loads no torch."""


class StageConfig(Config):
    """A configuration that is one stage by itself, such as a detector or a metric: its fields are the stage's settings.

    What a subclass says of the stage beside them is the same as in a `StageSpec`.
    """

    kind: str
    """Which one is meant."""
    label: ClassVar[str] = ""
    """What people call it, in tables and figures; its kind if empty."""
    version: ClassVar[int] = 1
    """Raised when equal settings would give another artifact, so that old ones are not found any more."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Roles of the artifacts that the stage is given."""
    run: ClassVar[Function]
    """The stage's function of its context."""
    diagnose: ClassVar[Function | None] = None
    """Its diagnostics, which know the poison that the stage does not."""
    seeded: ClassVar[bool] = True
    """The trial's seed is part of the key."""
    work: ClassVar[Function | None] = None
    """How much work it is (`ubt.engine.work`); without it, a plan knows its time only where it has run before."""


def kind_of(model: type[Config], tag: str = "kind") -> str:
    """Return the name that a configuration class is registered by: its `kind`, or what `tag` is called."""
    return cast(str, model.model_fields[tag].default)


def _built(model: type[Config]) -> type[Config]:
    model.model_rebuild()
    return model


class ByKind:
    """Annotates a field: `AttackConfig = Annotated[Attack, ByKind(ATTACKS)]`.

    A discriminated union is closed when the module is imported; this one asks the registry when a value is validated,
    so that a plug-in's class is found too. With `bare_names` a name stands for its class with default settings. Classes
    that `accepts` returns False for may not stand in this field; `otherwise` says why.
    """

    def __init__(
        self,
        registry: Registry[Any],
        tag: str = "kind",
        bare_names: bool = False,
        accepts: Callable[[Any], bool] = lambda model: True,
        otherwise: str = "",
    ) -> None:
        self._registry = registry
        self._tag = tag
        self._bare_names = bare_names
        self._accepts = accepts
        self._otherwise = otherwise

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        models = filter(self._accepts, self._registry.usable())
        members = {kind_of(model, self._tag): _built(model).__pydantic_core_schema__ for model in models}
        union = handler(core_schema.tagged_union_schema(members, self._tag))
        if self._bare_names:
            union["oneOf"].append({"enum": list(members)})
        return union

    def _validated(self, given: object) -> object:
        """Return the configuration; errors are pydantic's, so that they carry the path of the field."""
        if isinstance(given, Config):
            self._check(type(given))
            return given
        if isinstance(given, str) and self._bare_names:
            given = {self._tag: given}
        if not isinstance(given, Mapping):
            raise PydanticKnownError("dict_type")
        if self._tag not in given:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": repr(self._tag)})
        name = given[self._tag]
        if not isinstance(name, str):
            raise self._refused(Problem(self._tag, f"is a name; allowed: {', '.join(self._registry.names())}", name))
        try:
            model = self._registry.get(name)
        except UserError as error:
            raise self._refused(error.problems[0]) from error
        self._check(model)
        return model.model_validate(given)

    def _check(self, model: type[Config]) -> None:
        if not self._accepts(model):
            names = [kind_of(other, self._tag) for other in self._registry.loaded() if self._accepts(other)]
            given = kind_of(model, self._tag)
            raise self._refused(Problem(self._tag, f"{self._otherwise}; allowed: {', '.join(names)}", given))

    def _refused(self, problem: Problem) -> PydanticCustomError:
        """Return an error from which `ubt.config.load` reads the problem back."""
        context: dict[str, Any] = {"problem": problem, "tag": self._tag}
        return PydanticCustomError("unknown_kind", "not allowed", context)

    def spelt_out(self, given: JsonValue, default: object) -> JsonValue:
        """Return what the field is given as an object that says its kind: a bare name's, else that of the default.

        Where no bare name is allowed, or there is no default, it is returned as it is.
        """
        if not self._bare_names:
            return given
        if isinstance(given, str):
            return {self._tag: given}
        if isinstance(default, Config) and (given is None or (isinstance(given, dict) and self._tag not in given)):
            return {self._tag: kind_of(type(default), self._tag), **(given or {})}
        return given

    def model_of(self, given: Mapping[str, JsonValue]) -> type[Config] | None:
        """Return the class that an object's kind stands for; None if it is unknown."""
        with suppress(UserError):  # what is wrong with it is said when it is validated
            model: type[Config] = self._registry.get(str(given.get(self._tag)))
            return model
        return None
