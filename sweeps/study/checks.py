"""What is wrong with a study that no single field shows. Loads neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from pydantic import JsonValue

from sweeps.search.base import Search, Study, identity, settle
from sweeps.search.proposals import Changes
from sweeps.search.space import MOST_TRIALS, samples_of
from ubt.common.errors import Problem, UserError
from ubt.config import get_path
from ubt.config.base import kind_of
from ubt.engine.graph import is_observed
from ubt.models.checks import check_attention, check_model
from ubt.trials.config import VictimConfig

_PATHS = "paths begin with `victim.` or `defense.`; `ubt schema` lists the fields there are"


def check_study(study: Study, source: str) -> None:
    """Check what single fields cannot: models, files, targets, and every configuration of the search.

    Raises:
        UserError: with every mistake found.
    """
    found = [*_once(_findings(study, f"{source}: ")), *_part_problems(study, source), *_budget_problems(study, source)]
    found += _stopping_problems(study, source)
    found = found or _too_many_trials(study, source)
    if found:
        raise UserError(found)


def _too_many_trials(study: Study, source: str) -> list[Problem]:
    if study.trials <= MOST_TRIALS:
        return []
    message = f"makes {study.trials:,} trials with {len(study.seeds)} seeds; a study may have {MOST_TRIALS:,}"
    return [Problem(f"{source}: search", message, advice="give fewer configurations, n_trials or seeds")]


def _budget_problems(study: Study, source: str) -> Iterator[Problem]:
    """Yield what is wrong with the budget: one that would never be reached, and one of a part of the search."""
    where = f"{source}: search"
    if study.search.budget and study.search.budget.needs_gpus and not study.gpus:
        message, advice = "is of GPUs, and trials have none", "give `hours`, or say resources.gpus_per_trial"
        yield Problem(f"{where}.budget", message, study.search.budget.text(), advice)
    parts = (part.study.search for part in study.search.parts(study))
    if any(search.budget for search in (*study.search.children, *parts)):
        yield Problem(where, "has a `budget` in one of its parts", advice="a budget is of the whole: `search.budget`")


def _stopping_problems(study: Study, source: str) -> Iterator[Problem]:
    """Yield why trials cannot be stopped: by a part of the search, in a design of whole trials, without an attack."""
    where, search = f"{source}: search", study.search
    parts = [*search.children, *(part.study.search for part in search.parts(study))]
    if any(part.stopping for part in parts):
        message = "has `stopping` in one of its parts"
        yield Problem(where, message, advice="trials are stopped by the whole: `search.stopping`")
    if search.stopping is None:
        return
    reasons = [one.needs_whole_trials for one in (search, *search.children) if one.needs_whole_trials]
    if reasons:
        yield Problem(f"{where}.stopping", f"stops no trial of this search: {reasons[0]}", advice="leave it out")
    if study.rule == "lowest_asr" and study.victim.attack is None:
        advice = "name the attack; or say `objectives.rule: trigger_free`; or leave `search.stopping` out"
        yield Problem("victim.attack", "is null, so there is no ASR by which trials could be stopped", advice=advice)


def problems_of(check: Callable[[], object]) -> list[Problem]:
    """Return the problems that a check raises, and go on."""
    try:
        check()
    except UserError as error:
        return list(error.problems)
    return []


def _once(findings: Iterable[tuple[str, Problem]]) -> list[Problem]:
    """Return each problem once, behind the prefix that says where it is."""
    found: dict[tuple[str, str, str], Problem] = {}
    for prefix, problem in findings:
        setting = _setting(problem)
        # A mistake of the base is one of every configuration: it is shown where it is met first.
        found.setdefault((setting, problem.message, repr(problem.given)), replace(problem, where=prefix + setting))
    return list(found.values())


def _setting(problem: Problem) -> str:
    return problem.where.rpartition(": ")[2]


def _findings(study: Study, place: str) -> Iterator[tuple[str, Problem]]:
    """Yield each problem with a prefix that begins with `place`; some are met several times."""
    well = True
    for problem in _trial_problems(study, {}):
        yield place, problem
    for search in (study.search, *study.search.children):
        yield from ((f"{place}search.when.", problem) for problem in _condition_problems(study, search))
        for path, dimension in search.space.items():
            ends, between = samples_of(dimension)
            for problem in _space_problems(study, path, ends) or _space_problems(study, path, between):
                well = False
                yield f"{place}search.space.", problem
    if well:
        yield from _layout_problems(study, place)
        yield from ((place, problem) for problem in _rule_problems(study))
        yield from ((place, problem) for problem in _given_poison_problems(study))


def _part_problems(study: Study, source: str) -> Iterator[Problem]:
    """Yield what is wrong with the parts of the search that are checked like studies of their own."""
    for part in study.search.parts(study):
        for problem in _once(_findings(part.study, "")):
            if part.names(problem.where):
                yield replace(problem, where=f"{source}: {part.place}{problem.where.removeprefix(part.only)}")


def _rule_problems(study: Study) -> Iterator[Problem]:
    """Yield that settings are to be chosen by what is not measured.

    That is ASR, if no attack is known, or what is seen without the trigger, of a defense that selects no pairs.
    """
    if study.rule == "lowest_asr" and study.victim.attack is None and study.search.chosen_later:
        message = "is null, so there is no ASR that the search could learn from"
        yield Problem(
            "victim.attack", message, advice="name the attack; or say `objectives.rule: trigger_free`; or take a design"
        )
    if study.rule == "lowest_asr" or study.search.children or any(study.search.parts(study)):
        return
    if problems_of(partial(study.trial, {})) or not study.search.space:
        return
    defense = study.trial({}).defense
    if not is_observed(defense):
        message = "selects no pairs, so nothing is seen of its settings without the trigger (objectives.rule)"
        advice = "search the settings of ubt or abl; or leave this search out; or choose by lowest_asr"
        yield Problem("defense.kind", message, kind_of(type(defense)), advice)


def _given_poison_problems(study: Study) -> Iterator[Problem]:
    """Yield that several attacks are searched or compared where the pairs are poisoned already, by one."""
    if study.victim.poisoning.kind != "given":
        return
    searched = [path for search in (study.search, *study.search.children) for path in search.space if _of_attack(path)]
    try:
        layout = [proposal.changes for proposal in study.proposals()]
    except ValueError:  # said by `_layout_problems`
        return
    attacks = [{path: value for path, value in changes.items() if _of_attack(path)} for changes in layout]
    if searched or any(attack != attacks[0] for attack in attacks):
        message = "several attacks on pairs that are poisoned already, by one"
        advice = "a study of one attack for each set of given pairs; or `victim.poison.kind: made` poisons them here"
        yield Problem(f"search.space.{searched[0]}" if searched else "search", message, advice=advice)


def _of_attack(path: str) -> bool:
    return path == "victim.attack" or path.startswith("victim.attack.")


_Models = dict[int, tuple[VictimConfig, list[Problem]]]
"""What is wrong with the models of victims, by the number of each one's object, which is kept."""


def _layout_problems(study: Study, place: str) -> Iterator[tuple[str, Problem]]:
    try:
        configurations = list(study.search.places(study))
    except ValueError as error:
        path, _, message = str(error).partition(": ")
        yield f"{place}search.", Problem(path if path == "space" else f"space.{path}", message)
        return
    models: _Models = {}
    for where, changes in configurations:
        for problem in _trial_problems(study, changes, models):
            yield f"{place}{where}: ", problem


def _condition_problems(study: Study, search: Search) -> Iterator[Problem]:
    """Yield what is asked for that is no field, or no value of one: such a condition would never hold."""
    for path, condition in search.when.items():
        for asked, wanted in {path: [], **condition}.items():
            if not _exists(study, asked):
                yield Problem(asked, "there is no such field to ask for", advice=_PATHS)
                continue
            for value in wanted if isinstance(wanted, list) else [wanted]:
                found = problems_of(partial(study.trial, {asked: value}))
                # Of another kind, what stands beside may be wrong; it is not what is asked for.
                yield from (replace(one, where=asked) for one in found if _setting(one) == asked)


def _space_problems(study: Study, path: str, values: list[JsonValue]) -> list[Problem]:
    if not _exists(study, path):
        return [Problem(path, "there is no such field to search", advice=_PATHS)]
    problems = [problem for value in values for problem in _trial_problems(study, {path: value})]
    return problems or _repeated(path, values, [settle(study, {path: value})[path] for value in values])


def _repeated(path: str, written: list[JsonValue], held: list[JsonValue]) -> list[Problem]:
    """Return the problem of values that are one to the field, as 1 and 1.0 are."""
    alike: dict[str, list[JsonValue]] = {}
    for value, settled in zip(written, held, strict=True):
        alike.setdefault(identity({path: settled}), []).append(value)
    return [Problem(path, "these values are one to this field", same) for same in alike.values() if len(same) > 1]


def _exists(study: Study, path: str) -> bool:
    try:
        get_path(study.base, path)
    except KeyError:
        return False
    return True


def _trial_problems(study: Study, changes: Changes, models: _Models | None = None) -> list[Problem]:
    """Return what is wrong with a configuration; `models` keeps what was found of its model, for the next ones."""
    models = {} if models is None else models
    try:
        trial = study.trial(changes)
    except UserError as error:
        return list(error.problems)
    victim = trial.victim
    if id(victim) not in models:
        models[id(victim)] = victim, problems_of(lambda: check_model(victim.model, victim.implant.checkpoint))
    problems = list(models[id(victim)][1])
    for check in (trial.check_target, trial.check_attack, trial.check_poison, trial.check_defense):
        problems += problems_of(check)
    if getattr(trial.defense, "attribution", None) == "chefer":
        problems += problems_of(lambda: check_attention(victim.model))
    return problems
