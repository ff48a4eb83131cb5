"""From a study's name or YAML file to a checked study: what it extends put under it, relative paths made absolute."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from sweeps.search.base import Changes, Search
from sweeps.search.comparison import ComparedDefense, Comparison
from sweeps.search.designs import Concat, Listed
from sweeps.search.space import Range
from sweeps.study.checks import check_study, problems_of
from sweeps.study.config import StudyConfig
from ubt.common.errors import Problem, UserError
from ubt.common.paths import expanded
from ubt.config import get_path, parse_assignment, read_yaml, set_path, validate
from ubt.config.dotted_paths import JsonObject
from ubt.data.shards import JOINT
from ubt.data.vocabulary import IMAGENET, TEMPLATES


def builtin_studies() -> dict[str, Path]:
    """Return name → file."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "studies").glob("*.yaml"))}


EXTENDS = "extends"
"""The field that names the study which a study starts from."""
FILES = (
    "victim.data.pairs",
    "victim.data.pretrain",
    "victim.data.labels",
    "victim.data.classes",
    "victim.data.templates",
    "victim.model.checkpoint",
    "victim.implant.checkpoint",
    "store",
)
"""Fields that name files. Workers run in folders of their own, so these have to be absolute."""
_JOINED = ("victim.data.pairs",)
"""Of those, the fields that may name several, joined."""
_IN_SEARCH = re.compile(r"^search\.(designs\.)?(space|trials)\.")
_TAGS = ("kind", "design")
"""Fields that say which fields the others beside them are."""


def read_study(reference: str) -> JsonObject:
    """Return the tree of a study by the name of a built-in one or the path of a YAML file.

    Relative paths start at the file's folder, those in built-in studies at the current one. The name is the file's
    unless it says another, never that of what it extends.

    Raises:
        UserError: if a file is missing or not YAML, or extends what it cannot.
    """
    path = _path_of(reference, Path(), reference)
    return {"name": path.stem, **_read(path, reference, ())}


def study_schema() -> JsonObject:
    """Return the JSON schema of a study's file, in which nothing need be said that is said elsewhere."""
    schema: JsonObject = StudyConfig.model_json_schema()
    extends: JsonObject = {"type": "string", "description": "Start from this study, and say only what differs."}
    properties = cast(JsonObject, schema["properties"])
    return {**schema, "properties": {EXTENDS: extends, **properties}, "required": []}


def absolute(value: JsonValue, path: str, folder: Path, source: str = "--set") -> JsonValue:
    """Return the part of a study at a dotted `path` with the relative file names in it made absolute.

    Raises:
        UserError: if a name begins with a home folder that does not exist.
    """
    if isinstance(value, dict):
        return {name: absolute(part, f"{path}.{name}", folder, source) for name, part in value.items()}
    if isinstance(value, list):
        return [absolute(part, path, folder, source) for part in value]
    field = _IN_SEARCH.sub("", path)
    if not isinstance(value, str) or field not in FILES or value in (IMAGENET, *TEMPLATES):
        return value
    names = value.split(JOINT) if field in _JOINED else [value]
    where = f"{source}: {path}"
    return JOINT.join(name if "://" in name else str((folder / expanded(name, where)).absolute()) for name in names)


def patched(base: JsonValue, patch: JsonValue) -> JsonValue:
    """Return `base` with `patch` over it: fields merge, null removes one, all else is replaced (RFC 7396).

    An object of another `kind` or `design` has other fields, so it replaces the base's whole.
    """
    if not isinstance(patch, dict):
        return patch
    if not isinstance(base, dict) or any(tag in patch and patch[tag] != base.get(tag) for tag in _TAGS):
        base = {}
    put = {name: patched(base.get(name), value) for name, value in patch.items()}
    return {name: value for name, value in {**base, **put}.items() if name not in patch or value is not None}


def _path_of(reference: str, folder: Path, where: str) -> Path:
    path = builtin_studies().get(reference) or folder / expanded(reference, where)
    if not path.is_file():
        names = ", ".join(builtin_studies())
        raise UserError(Problem(where, f"is neither a file nor a built-in study; built in: {names}"))
    return path


def _read(path: Path, source: str, extending: tuple[Path, ...]) -> JsonObject:
    """Return a file's tree over that of the study which it extends; `extending` are the files that led here."""
    led_here = (*extending, path.resolve())
    if path.resolve() in extending:
        raise UserError(Problem(source, f"goes round in a circle: {' → '.join(file.stem for file in led_here)}"))
    folder = Path.cwd() if path in builtin_studies().values() else path.parent
    tree = {part: absolute(value, str(part), folder, source) for part, value in read_yaml(path).items()}
    reference = tree.pop(EXTENDS, None)
    if reference is None:
        return tree
    if not isinstance(reference, str):
        raise UserError(Problem(f"{source}: {EXTENDS}", "needs one study's name or file", given=reference))
    where = f"{source}: {EXTENDS}: {reference}"
    base = _read(_path_of(reference, path.parent, where), where, led_here)
    base.pop("name", None)
    return cast(JsonObject, patched(base, tree))


def load_study(reference: str, assignments: Iterable[str] = (), name: str | None = None) -> StudyConfig:
    """Return a study by the name of a built-in one or the path of a YAML file, with `--set` values put in.

    Relative paths in `--set` start at the current folder, those in files where `read_study` says.

    Raises:
        UserError: with every mistake found.
    """
    tree = read_study(reference)
    for assignment in assignments:
        where, value = parse_assignment(assignment)
        tree = set_path(tree, where, absolute(value, where, Path.cwd()))
    if name is not None:
        tree = set_path(tree, "name", name)
    return _settled(_checked(tree, reference))


def _checked(tree: JsonObject, source: str) -> StudyConfig:
    try:
        study = validate(StudyConfig, tree, source)
    except UserError as error:
        paths = [problem.where.removeprefix(f"{source}: ") for problem in error.problems]
        raise UserError([*error.problems, *_further_problems(tree, paths, source)]) from error
    check_study(study, source)
    return study


def _further_problems(tree: JsonObject, mistaken: list[str], source: str) -> list[Problem]:
    """Return what else is wrong once mistaken fields are left out, so that all is told at once.

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
    head, _, rest = path.partition(".")
    child = tree.get(head)
    if not rest or not isinstance(child, dict):
        return {name: value for name, value in tree.items() if name != head}
    return {**tree, head: _without(child, rest)}


def _settled(study: StudyConfig) -> StudyConfig:
    """Return the study with the search's values as fields hold them (YAML reads `1e-5` as text), and its precision."""
    return study.with_parts(search=_settled_search(study, study.search), victim=study.settled_victim)


def _settled_search(study: StudyConfig, search: Search) -> Search:
    update: dict[str, object] = {
        "space": {
            path: dimension
            if isinstance(dimension, Range)
            else [_settle(study, {path: value})[path] for value in dimension]
            for path, dimension in search.space.items()
        }
    }
    if isinstance(search, Listed):
        update["trials"] = [_settle(study, changes) for changes in search.trials]
    if isinstance(search, Concat):
        update["designs"] = [_settled_search(study, design) for design in search.designs]
    if isinstance(search, Comparison):
        update["defenses"] = {name: _settled_defense(study, compared) for name, compared in search.defenses.items()}
    return search.model_copy(update=update)


def _settled_defense(study: StudyConfig, compared: ComparedDefense) -> ComparedDefense:
    if compared.search is None:
        return compared
    own = study.with_parts(defense=compared.defense)
    return compared.model_copy(update={"search": _settled_search(own, compared.search)})


def _settle(study: StudyConfig, changes: Changes) -> Changes:
    tree = study.trial(changes).as_json()
    return {path: value if isinstance(value, list | dict) else get_path(tree, path) for path, value in changes.items()}
