"""Going on with a run: its study must be the one that was begun, but for what may change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

from pydantic import JsonValue

from sweeps.run.folder import RunFolder, presentable
from sweeps.search.adaptive import Adaptive
from sweeps.search.comparison import Comparison
from sweeps.study.config import StudyConfig
from ubt.common.errors import Problem, UserError
from ubt.config import read_json
from ubt.config.dotted_paths import JsonObject

MAY_CHANGE = ("name", "resources", "tracking", "objectives", "store")
"""Parts of a study that a resumed run may change: they decide neither what is run nor what comes out of it."""


def check_same_study(run: RunFolder, study: StudyConfig, extend: bool = False) -> StudyConfig:
    """Return the study as it was begun: with the `search.lag` of the machine then, and the trials added since.

    With `extend` the search may differ: its configurations are run behind those there are.

    Raises:
        UserError: naming each field that differs; the run's records would belong to neither study.
    """
    before = read_json(run.study)
    if isinstance(study.search, Adaptive):
        begun = cast(JsonObject, before.get("search", {}))
        study = study.with_parts(search=_as_begun(study.search, begun, extend))
    where, advice = f"--resume {run.path.name}", "give the value of the first run, or leave --resume out"
    problems = [
        Problem(f"{where}: {path}", f"differs from the run, which has {old!r}", new, advice)
        for path, new, old in _differences(json.loads(presentable(study)), before)
        if path.partition(".")[0] not in _may_change(study, extend)
    ]
    if problems:
        raise UserError(problems)
    return study


def _as_begun(search: Adaptive, before: JsonObject, extend: bool) -> Adaptive:
    """Return a search with the lag that followed from the machine and, unless it is another, the trials added since."""
    asked = before.get("n_trials")
    n_trials = max(search.n_trials, asked) if isinstance(asked, int) and not extend else search.n_trials
    return search.model_copy(update={"lag": search.lag or before.get("lag"), "n_trials": n_trials})


def _may_change(study: StudyConfig, extend: bool) -> tuple[str, ...]:
    if extend:
        return (*MAY_CHANGE, "search")
    decisive = ["objectives"] if isinstance(study.search, Comparison) else []  # its table is of what they choose
    return tuple(part for part in MAY_CHANGE if part not in decisive)


def with_more_trials(run: RunFolder, study: StudyConfig, more: int) -> StudyConfig:
    """Return the study with `more` trials than the run was last asked for.

    Raises:
        UserError: if its search is none of Optuna's: a design says itself how many trials it has.
    """
    if not isinstance(study.search, Adaptive):
        changed = "name further attacks or defenses" if isinstance(study.search, Comparison) else "change the design"
        advice = f"{changed} in the study and say --extend"
        raise UserError(Problem("--add-trials", "only an adaptive search (`design: optuna`) takes more", advice=advice))
    before = cast(JsonObject, read_json(run.study).get("search", {})).get("n_trials")
    asked = before if isinstance(before, int) else study.search.n_trials
    return study.with_parts(search=study.search.model_copy(update={"n_trials": asked + more}))


def _differences(now: JsonObject, before: JsonObject, prefix: str = "") -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Yield the path, the new and the old value of each leaf that differs, also where only one side has it."""
    for name in {**before, **now}:
        new, old = now.get(name), before.get(name)
        if isinstance(new, dict) and isinstance(old, dict):
            yield from _differences(new, old, f"{prefix}{name}.")
        elif new != old:
            yield f"{prefix}{name}", new, old
