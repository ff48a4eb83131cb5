"""Which run a sweep works in, whether that may go on with the study as it is given now, and as which study."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

from pydantic import JsonValue

from sweeps.run.folder import RunFolder, presentable, read_or_none
from sweeps.run.places import has_run, latest_run, new_run
from sweeps.study.config import StudyConfig
from ubt.common.errors import Problem, UserError
from ubt.common.paths import STUDY_FILE
from ubt.config.dotted_paths import JsonObject
from ubt.trials.migration import migrated_study

MAY_CHANGE = ("name", "resources", "tracking", "objectives", "gates", "store", "store_budget", "plugins")
"""Parts of a study that a resumed run may change: they decide neither what is run nor what comes out of it. (What a
plug-in's code is, the keys of its stages say.) A search may be decided by more: see `Search.decided_by`."""

logger = logging.getLogger(__name__)


def run_for(
    study: StudyConfig,
    out: Path | str,
    resume: bool | Literal["auto"] = False,
    extend: bool = False,
    add_trials: int = 0,
) -> tuple[RunFolder, StudyConfig]:
    """Return the run that a sweep works in, a new one or one that goes on, and the study that it runs there.

    Raises:
        UserError: if there is no run to go on with, or the study differs from it.
    """
    if not (resume or extend or add_trials) or (resume == "auto" and not has_run(out, study.name)):
        return new_run(out, study.name), study
    run = latest_run(out, study.name)
    if add_trials:
        study = with_more_trials(run, study, add_trials)
    return run, check_same_study(run, study, extend=extend or bool(add_trials))


def check_same_study(run: RunFolder, study: StudyConfig, extend: bool = False) -> StudyConfig:
    """Return the study as it was begun: its search with the trials added since, say.

    With `extend` the search may differ: its configurations are run behind those there are. A study.json that is damaged
    is no hindrance, for a record answers only the very trial that it is of.

    Raises:
        UserError: naming each field that differs; the run's records would belong to neither study.
    """
    begun = _as_begun(run)
    if begun is None:
        return study
    before = _complete(begun)
    study = study.with_search(study.search.as_begun(_search_of(before), extend))
    where, advice = f"--resume {run.path.name}", "give the value of the first run, or leave --resume out"
    may_change = {*MAY_CHANGE, "search"} if extend else {*MAY_CHANGE} - {*study.search.decided_by}
    problems = [
        Problem(f"{where}: {path}", f"differs from the run, which has {old!r}", new, advice)
        for path, new, old in _differences(json.loads(presentable(study)), before)
        if path.partition(".")[0] not in may_change and not path.startswith("search.budget")
    ]
    if problems:
        raise UserError(problems)
    return study


def _complete(study: JsonObject) -> JsonObject:
    """Return a study as it was written down, with the fields that there are since: it ran with their defaults."""
    try:
        return cast(JsonObject, json.loads(presentable(StudyConfig.model_validate(study))))
    except (ValueError, UserError):
        return study


def with_more_trials(run: RunFolder, study: StudyConfig, more: int) -> StudyConfig:
    """Return the study with `more` trials than the run was last asked for.

    Raises:
        UserError: if its search says itself how many trials it has, as a design does.
    """
    return study.with_search(study.search.with_more_trials(more, _search_of(_as_begun(run) or {})))


def _as_begun(run: RunFolder) -> JsonObject | None:
    """Return the study as it was begun, with today's names; None, with a note, if its file is damaged."""
    study = read_or_none(run.study)
    if study is None:
        text = "%s is damaged: the study is taken as it is given now, and answered by those records that are of it"
        logger.warning(text, run.study)
        return None
    return migrated_study(study)


def _search_of(study: JsonObject) -> JsonObject:
    search = study.get("search", {})
    if not isinstance(search, dict):
        raise UserError(Problem(f"{STUDY_FILE}: search", "must be an object", search, "the file was changed by hand"))
    return search


def _differences(now: JsonObject, before: JsonObject, prefix: str = "") -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Yield the path, the new and the old value of each leaf that differs, also where only one side has it."""
    for name in {**before, **now}:
        new, old = now.get(name), before.get(name)
        if isinstance(new, dict) and isinstance(old, dict):
            yield from _differences(new, old, f"{prefix}{name}.")
        elif new != old:
            yield f"{prefix}{name}", new, old
