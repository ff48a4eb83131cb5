"""From a study's name or YAML file to a checked study: what it extends put under it, relative paths made absolute."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from sweeps.study.builtin import builtin_studies
from sweeps.study.checks import check_study, problems_of
from sweeps.study.config import StudyConfig
from ubt.attacks import ATTACKS
from ubt.common.errors import Problem, UserError
from ubt.common.paths import expanded, is_file
from ubt.common.registry import Registry, load_plugins
from ubt.config import parse_assignment, parse_text, read_yaml, set_path, validate
from ubt.config.dotted_paths import JsonObject, first_key
from ubt.config.shapes import NO_SHAPE, Shape
from ubt.data import DATA_SOURCES
from ubt.data.shards import JOINT
from ubt.defenses import DEFENSES
from ubt.models.settings import LOCAL_DIR

EXTENDS = "extends"
"""The field that names the study which a study starts from."""
PLUGINS = "plugins"
PATHS = (
    *("victim.model.checkpoint", "victim.implant.checkpoint", "victim.poison.manifest"),
    *("search.warm_start", "store", PLUGINS),
)
"""Fields that name files, beside those that data sources, attacks and defenses have (their `path_fields`). Workers run
in folders of their own, so these have to be absolute."""
_REGISTRIES: dict[str, Registry[Any]] = {"victim.data": DATA_SOURCES, "victim.attack": ATTACKS, "defense": DEFENSES}
_ATTACKS_OF_A_COMPARISON = re.compile(r"^search\.attacks\.[^.]+")
_TAGS = ("kind", "design")
"""Fields that say which fields the others beside them are."""


@dataclass(frozen=True)
class _File:
    """One file of a study, as it is written."""

    tree: JsonObject
    folder: Path
    """Where relative paths in it start."""
    source: str
    """What it is called in messages."""

    def part(self, name: str) -> JsonValue:
        """Return a field of the study with its relative paths made absolute."""
        return absolute(self.tree[name], name, self.folder, self.source)


def read_study(reference: str, plugins: JsonValue = None) -> JsonObject:
    """Return the tree of a study by the name of a built-in one or the path of a YAML file; its plug-ins are imported.

    Relative paths start at the file's folder, those in built-in studies at the current one. The name is the file's
    unless it says another, never that of what it extends. `plugins` stand in the place of those in the files.

    Raises:
        UserError: if a file is missing or not YAML, or extends what it cannot, or a plug-in cannot be imported.
    """
    path = _path_of(parse_text(reference, "study"), Path(), reference)
    *extended, own = _files(path, reference, ())
    named = [file.part(PLUGINS) for file in (own, *reversed(extended)) if PLUGINS in file.tree]
    _import_plugins(next(iter(named), None) if plugins is None else plugins)
    tree: JsonValue = None
    for file in (*extended, own):
        written = {name: file.part(name) for name in file.tree if file is own or name != "name"}
        tree = written if tree is None else patched(tree, written, Shape(StudyConfig))
    return {"name": path.stem, **cast(JsonObject, tree)}


def _import_plugins(names: JsonValue) -> None:
    """Import plug-ins before anything is checked: without them their kinds would be unknown."""
    if isinstance(names, list):  # anything else is found when the fields are checked
        load_plugins(name for name in names if isinstance(name, str))


def study_schema() -> JsonObject:
    """Return the JSON schema of a study's file, in which nothing need be said that is said elsewhere."""
    schema: JsonObject = StudyConfig.model_json_schema()
    extends: JsonObject = {"type": "string", "description": "Start from this study, and say only what differs."}
    properties = cast(JsonObject, schema["properties"])
    return {**schema, "properties": {EXTENDS: extends, **properties}, "required": []}


def absolute(
    value: JsonValue, path: str, folder: Path, source: str = "--set", beside: JsonObject | None = None
) -> JsonValue:
    """Return the part of a study at a dotted `path` with the relative file names in it made absolute.

    `beside` are the fields of the object that the part belongs to, if that is known.

    Raises:
        UserError: if a name begins with a home folder that does not exist.
    """
    if isinstance(value, dict):
        return {name: absolute(part, f"{path}.{name}", folder, source, value) for name, part in value.items()}
    if isinstance(value, list):
        return [absolute(part, path, folder, source, beside) for part in value]
    if isinstance(value, str) and path.endswith("victim.model.name") and value.startswith(LOCAL_DIR):
        place = expanded(value.removeprefix(LOCAL_DIR), f"{source}: {path}")
        return f"{LOCAL_DIR}{(folder / place).absolute()}"
    if not isinstance(value, str) or (field := _path_field(path, beside or {})) is None or value in field.others:
        return value
    if path == PLUGINS and not value.endswith(".py"):
        return value
    names = value.split(JOINT) if field.joined else [value]
    where = f"{source}: {path}"
    return JOINT.join(name if "://" in name else str((folder / expanded(name, where)).absolute()) for name in names)


@dataclass(frozen=True)
class _PathField:
    joined: bool = False
    """It may hold several paths."""
    others: frozenset[str] = frozenset()
    """Values that are no paths."""


def _path_field(path: str, beside: JsonObject) -> _PathField | None:
    """Return how a field holds paths; None if it holds none."""
    path = _ATTACKS_OF_A_COMPARISON.sub("victim.attack", path)
    owner, _, name = path.rpartition(".")
    if path in PATHS or path.endswith(tuple(f".{field}" for field in PATHS if "." in field)):
        return _PathField()
    for place, registry in _REGISTRIES.items():
        if owner == place or owner.endswith(f".{place}"):
            owners = [model for model in _classes(registry, beside.get("kind")) if name in model.path_fields]
            joined = any(name in getattr(model, "joined_path_fields", ()) for model in owners)
            others = (other for model in owners for other in getattr(model, "builtin_names", ()))
            return _PathField(joined, frozenset(others)) if owners else None
    return None


def _classes(registry: Registry[Any], kind: JsonValue) -> list[Any]:
    """Return the class of a kind; where the kind is not known, all classes that it may be."""
    with suppress(UserError):  # that a plug-in cannot be imported is said when the fields are checked
        if isinstance(kind, str) and kind in registry:
            return [registry.get(kind)]
    return list(registry.loaded())


def patched(base: JsonValue, patch: JsonValue, shape: Shape = NO_SHAPE) -> JsonValue:
    """Return `base` with `patch` over it: fields merge, null removes one, all else is replaced (RFC 7396).

    Where null is a value of its own, as of `victim.attack`, it is put in: removed, the field would have its default.
    An object of another `kind` or `design` has other fields, so it replaces the base's whole. A bare name in the base
    stands for the object of that kind, where the `shape` of the place allows one.
    """
    if not isinstance(patch, dict):
        return patch
    base = shape.spelt_out(base)
    if not isinstance(base, dict) or any(tag in patch and patch[tag] != base.get(tag) for tag in _TAGS):
        base = {}
    beside = {**base, **patch}
    parts = {name: shape.part(name, beside) for name in patch}
    put = {name: patched(base.get(name), value, parts[name]) for name, value in patch.items()}
    removed = {name for name, value in put.items() if value is None and not parts[name].null_says}
    return {name: value for name, value in {**base, **put}.items() if name not in removed}


def _path_of(reference: str, folder: Path, where: str) -> Path:
    path = builtin_studies().get(reference) or folder / expanded(reference, where)
    if not is_file(path):
        names = ", ".join(builtin_studies())
        raise UserError(Problem(where, f"is neither a file nor a built-in study; built in: {names}"))
    return path


def _files(path: Path, source: str, extending: tuple[Path, ...]) -> list[_File]:
    """Return a study's file behind those that it extends; `extending` are the files that led here."""
    led_here = (*extending, path.resolve())
    if path.resolve() in extending:
        raise UserError(Problem(source, f"goes round in a circle: {' → '.join(file.stem for file in led_here)}"))
    folder = Path.cwd() if path in builtin_studies().values() else path.parent
    tree = read_yaml(path)
    reference = tree.pop(EXTENDS, None)
    own = _File(tree, folder, source)
    if reference is None:
        return [own]
    if not isinstance(reference, str):
        raise UserError(Problem(f"{source}: {EXTENDS}", "needs one study's name or file", given=reference))
    where = f"{source}: {EXTENDS}: {reference}"
    return [*_files(_path_of(reference, path.parent, where), where, led_here), own]


def load_study(reference: str, assignments: Iterable[str] = (), name: str | None = None) -> StudyConfig:
    """Return a study by the name of a built-in one or the path of a YAML file, checked.

    Args:
        reference: name or path.
        assignments: fields put in its place, `path=value` with the value in YAML, as after `--set`.
        name: what the run is called; by default what the study is.

    Relative paths in `assignments` start at the current folder, those in files where `read_study` says.

    Example:
        >>> study = load_study("demo", ["seeds=[1]", "defense.token_threshold=0.2"])
        >>> study.seeds, study.defense.token_threshold
        ((1,), 0.2)

    Raises:
        UserError: with every mistake found.
    """
    assigned = _assigned(assignments)
    tree = read_study(reference, plugins=dict(assigned).get(PLUGINS))
    if name is not None:
        assigned = [*assigned, ("name", name)]
    return _settled(tree, reference, assigned)


def study_of(tree: JsonObject, source: str, assignments: Iterable[str] = ()) -> StudyConfig:
    """Return the study in a tree that a program has made, whose paths are absolute, checked like one in a file.

    `source` begins the messages.

    Raises:
        UserError: with every mistake found.
    """
    assigned = _assigned(assignments)
    _import_plugins(dict(assigned).get(PLUGINS))
    return _settled(tree, source, assigned)


def _assigned(assignments: Iterable[str]) -> list[tuple[str, JsonValue]]:
    return [(path, absolute(value, path, Path.cwd())) for path, value in map(parse_assignment, assignments)]


def _settled(tree: JsonObject, source: str, assigned: Iterable[tuple[str, JsonValue]]) -> StudyConfig:
    for path, value in assigned:
        tree = set_path(tree, path, value, StudyConfig)
    study = _checked(tree, source)
    return study.with_parts(search=study.search.settled(study), victim=study.settled_victim)


def _checked(tree: JsonObject, source: str) -> StudyConfig:
    try:
        study = validate(StudyConfig, tree, source)
    except UserError as error:
        paths = [problem.where.removeprefix(f"{source}: ") for problem in error.problems]
        raise UserError([*error.problems, *_further_problems(tree, paths, source)]) from error
    check_study(study, source)
    return study


def _further_problems(tree: JsonObject, mistaken: list[str], source: str) -> list[Problem]:
    """Return what else is wrong once mistaken fields are left out, so that all is said at once.

    Without knowing which data, attack or design is meant, nothing can be said about the rest.
    """
    if any(path.endswith((".kind", ".design")) for path in mistaken):
        return []
    for path in mistaken:
        tree = _without(tree, path)
    try:
        study = validate(StudyConfig, tree, source)
    except UserError:
        return []
    found = problems_of(lambda: check_study(study, source))
    return [problem for problem in found if not problem.where.endswith(tuple(mistaken))]


def _without(tree: JsonObject, path: str) -> JsonObject:
    head, rest = first_key(tree, path)
    child = tree.get(head)
    if rest is None or not isinstance(child, dict):
        return {name: value for name, value in tree.items() if name != head}
    return {**tree, head: _without(child, rest)}
