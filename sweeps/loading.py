"""From a study's name or YAML file to a checked study. Loads neither Ray nor torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import JsonValue

from sweeps.builtin import builtin_studies
from sweeps.checks import check_study, problems_of
from sweeps.search.designs import ComparedDefense, Comparison, Concat, Listed, Search
from sweeps.search.proposer import Changes
from sweeps.search.space import Range
from sweeps.study import StudyConfig
from ubt.config import get_path, parse_assignment, read_yaml, set_path, validate
from ubt.config.paths import JsonObject
from ubt.data.vocabulary import IMAGENET, TEMPLATES
from ubt.errors import Problem, UserError

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
_IN_SEARCH = re.compile(r"^search\.(designs\.)?(space|trials)\.")


def load_study(reference: str, assignments: Iterable[str] = (), name: str | None = None) -> StudyConfig:
    """Return a study by the name of a built-in one or the path of a YAML file, with `--set` values put in.

    Relative paths in a YAML file start at its folder, those in `--set` and built-in studies at the current one.

    Raises:
        UserError: with every mistake found.
    """
    built_in = builtin_studies().get(reference)
    path = built_in or Path(reference)
    if not path.is_file():
        names = ", ".join(builtin_studies())
        raise UserError(Problem(reference, f"is neither a file nor a built-in study; built in: {names}"))
    folder = Path.cwd() if built_in else path.parent
    tree = {part: _absolute(value, str(part), folder) for part, value in read_yaml(path).items()}
    tree.setdefault("name", path.stem)
    for assignment in assignments:
        where, value = parse_assignment(assignment)
        tree = set_path(tree, where, _absolute(value, where, Path.cwd()))
    if name is not None:
        tree = set_path(tree, "name", name)
    return _settled(_checked(tree, reference))


def _absolute(value: JsonValue, path: str, folder: Path) -> JsonValue:
    """Return a part of a study with the relative file names in it made absolute."""
    if isinstance(value, dict):
        return {name: _absolute(part, f"{path}.{name}", folder) for name, part in value.items()}
    if isinstance(value, list):
        return [_absolute(part, path, folder) for part in value]
    field = _IN_SEARCH.sub("", path)
    if not isinstance(value, str) or field not in FILES or "://" in value or value in (IMAGENET, *TEMPLATES):
        return value
    return str((folder / Path(value).expanduser()).absolute())


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
    """Return the study with the search's values as fields hold them: YAML reads `1e-5` as text."""
    return study.with_parts(search=_settled_search(study, study.search))


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
