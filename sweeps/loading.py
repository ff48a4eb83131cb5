"""From a study's name or YAML file to a checked study. Loads neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sweeps.checks import check_study, problems_of
from sweeps.search.designs import ComparedDefense, Comparison, Concat, Listed, Search
from sweeps.search.proposer import Changes
from sweeps.search.space import Range
from sweeps.study import StudyConfig
from sweeps.study_file import absolute, read_study
from ubt.config import get_path, parse_assignment, set_path, validate
from ubt.config.paths import JsonObject
from ubt.errors import Problem, UserError


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
