"""Going on with a run: its study must be the one that was begun, but for what may change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import cast

from pydantic import JsonValue

from sweeps.run.folder import RunFolder, presentable
from sweeps.study.config import StudyConfig
from ubt.common.errors import Problem, UserError
from ubt.config import read_json
from ubt.config.dotted_paths import JsonObject

MAY_CHANGE = ("name", "resources", "tracking", "objectives", "store", "plugins")
"""Parts of a study that a resumed run may change: they decide neither what is run nor what comes out of it. (What a
plug-in's code is, the keys of its stages say.) A search may be decided by more: see `Search.decided_by`."""


def check_same_study(run: RunFolder, study: StudyConfig, extend: bool = False) -> StudyConfig:
    """Return the study as it was begun: its search with the trials added since, say.

    With `extend` the search may differ: its configurations are run behind those there are.

    Raises:
        UserError: naming each field that differs; the run's records would belong to neither study.
    """
    before = read_json(run.study)
    study = study.with_search(study.search.as_begun(_search_of(before), extend))
    where, advice = f"--resume {run.path.name}", "give the value of the first run, or leave --resume out"
    may_change = {*MAY_CHANGE, "search"} if extend else {*MAY_CHANGE} - {*study.search.decided_by}
    problems = [
        Problem(f"{where}: {path}", f"differs from the run, which has {old!r}", new, advice)
        for path, new, old in _differences(json.loads(presentable(study)), before)
        if path.partition(".")[0] not in may_change
    ]
    if problems:
        raise UserError(problems)
    return study


def with_more_trials(run: RunFolder, study: StudyConfig, more: int) -> StudyConfig:
    """Return the study with `more` trials than the run was last asked for.

    Raises:
        UserError: if its search says itself how many trials it has, as a design does.
    """
    return study.with_search(study.search.with_more_trials(more, _search_of(read_json(run.study))))


def _search_of(study: JsonObject) -> JsonObject:
    return cast(JsonObject, study.get("search", {}))


def _differences(now: JsonObject, before: JsonObject, prefix: str = "") -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Yield the path, the new and the old value of each leaf that differs, also where only one side has it."""
    for name in {**before, **now}:
        new, old = now.get(name), before.get(name)
        if isinstance(new, dict) and isinstance(old, dict):
            yield from _differences(new, old, f"{prefix}{name}.")
        elif new != old:
            yield f"{prefix}{name}", new, old
