"""What is wrong with a study that no single field shows. Loads neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pydantic import JsonValue

from sweeps.search.base import Changes, Search
from sweeps.search.comparison import Comparison
from sweeps.search.designs import Concat, Grid, Listed
from sweeps.search.space import samples_of
from sweeps.study.config import StudyConfig
from ubt.common.errors import Problem, UserError
from ubt.config import get_path
from ubt.models.settings import check_model_name

_PATHS = "paths begin with `victim.` or `defense.`; `ubt schema` lists the fields there are"


def check_study(study: StudyConfig, source: str) -> None:
    """Check what single fields cannot: models, files, targets, and every configuration of the search.

    Raises:
        UserError: with every mistake found.
    """
    found = _told(_findings(study, f"{source}: "))
    if isinstance(study.search, Comparison):
        found += [*_attack_problems(study, study.search, source), *_defense_problems(study, study.search, source)]
    if found:
        raise UserError(found)


def problems_of(check: Callable[[], object]) -> list[Problem]:
    """Return the problems that a check tells of, and go on."""
    try:
        check()
    except UserError as error:
        return list(error.problems)
    return []


def _told(findings: Iterable[tuple[str, Problem]]) -> list[Problem]:
    """Return each problem once, behind the prefix that says where it is."""
    told: dict[tuple[str, str, str], Problem] = {}
    for prefix, problem in findings:
        setting = _setting(problem)
        # A mistake of the base is one of every configuration: it is told where it is met first.
        told.setdefault((setting, problem.message, repr(problem.given)), replace(problem, where=prefix + setting))
    return list(told.values())


def _setting(problem: Problem) -> str:
    return problem.where.rpartition(": ")[2]


def _findings(study: StudyConfig, place: str) -> Iterator[tuple[str, Problem]]:
    """Yield each problem with a prefix that begins with `place`; some are met several times."""
    well = True
    for problem in _trial_problems(study, {}):
        yield place, problem
    for search in _searches(study.search):
        yield from ((f"{place}search.when.", problem) for problem in _condition_problems(study, search))
        for path, dimension in search.space.items():
            ends, between = samples_of(dimension)
            for problem in _space_problems(study, path, ends) or _space_problems(study, path, between):
                well = False
                yield f"{place}search.space.", problem
    if well or isinstance(study.search, Listed):
        yield from _layout_problems(study, place)


def _attack_problems(study: StudyConfig, comparison: Comparison, source: str) -> Iterator[Problem]:
    """Yield what is wrong with each attack of a comparison, as in a target that is no class."""
    field = "victim.attack."
    for name, attack in comparison.attacks.items():
        attacked = study.with_parts(victim=study.victim.model_copy(update={"attack": attack}))
        for problem in _trial_problems(attacked, {}):
            if _setting(problem).startswith(field):
                where = f"{source}: search.attacks.{name}.{_setting(problem).removeprefix(field)}"
                yield replace(problem, where=where)


def _defense_problems(study: StudyConfig, comparison: Comparison, source: str) -> Iterator[Problem]:
    """Yield what is wrong with each defense of a comparison and with its search, as in a study of it alone."""
    for name, compared in comparison.defenses.items():
        place = f"{source}: search.defenses.{name}."
        alone = study.with_parts(defense=compared.defense, search=compared.search or Grid())
        found = _told(_findings(alone, place))
        yield from (problem for problem in found if not problem.where.startswith(f"{place}victim."))


def _searches(search: Search) -> list[Search]:
    return [search, *(search.designs if isinstance(search, Concat) else ())]


def _layout_problems(study: StudyConfig, place: str) -> Iterator[tuple[str, Problem]]:
    if isinstance(study.search, Comparison):
        return  # checked by its attacks and defenses
    listed = isinstance(study.search, Listed)
    try:
        layout = study.search.layout() if listed else study.layout()
    except NotImplementedError:
        return  # an adaptive search lays nothing out
    except ValueError as error:
        path, _, message = str(error).partition(": ")
        yield f"{place}search.", Problem(path if path == "space" else f"space.{path}", message)
        return
    for number, changes in enumerate(layout):
        for problem in _trial_problems(study, changes):
            yield f"{place}{'search.trials' if listed else 'configuration'}.{number}: ", problem


def _condition_problems(study: StudyConfig, search: Search) -> Iterator[Problem]:
    """Yield the paths of conditions that are no fields: such a condition would never hold."""
    for path, condition in search.when.items():
        for asked in (path, *condition):
            if not _exists(study, asked):
                yield Problem(asked, "there is no such field to ask for", advice=_PATHS)


def _space_problems(study: StudyConfig, path: str, values: list[JsonValue]) -> list[Problem]:
    if not _exists(study, path):
        return [Problem(path, "there is no such field to search", advice=_PATHS)]
    return [problem for value in values for problem in _trial_problems(study, {path: value})]


def _exists(study: StudyConfig, path: str) -> bool:
    try:
        get_path(study.base, path)
    except KeyError:
        return False
    return True


def _trial_problems(study: StudyConfig, changes: Changes) -> list[Problem]:
    try:
        trial = study.trial(changes)
    except UserError as error:
        return list(error.problems)
    problems = problems_of(lambda: check_model_name(trial.victim.model)) + problems_of(trial.check_target)
    problems += problems_of(trial.check_defense)
    checkpoint = trial.victim.implant.checkpoint
    if checkpoint and not checkpoint.is_file():
        problems.append(Problem("victim.implant.checkpoint", "there is no such file", str(checkpoint)))
    return problems
