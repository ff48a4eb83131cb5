"""What may be chosen: every configuration at its end and after each earlier epoch at which its model was judged.

A stage whose epochs can be continued gives the same model after epoch 3 however many follow. So the third of eight
epochs is a configuration of its own, that with three: it competes as such, and a trial of it gives its test rates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache

from analysis.points.configurations import (
    AtEpoch,
    Configuration,
    at_epochs,
    first_of_each_seed,
    judged_epochs,
    judged_stage,
)
from analysis.records import has_path
from ubt.common.errors import UserError
from ubt.config import get_path
from ubt.config.dotted_paths import JsonObject
from ubt.engine.spec import stage_named
from ubt.trials.record import State, TrialRecord

Model = tuple[str, int]
"""What a model is of: its configuration but for the number of epochs, as JSON, and that number (0: it has none)."""


def candidates(configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the configurations at their ends and earlier epochs, each model once, in the order of their trials.

    Of the same model under several names that which most seeds have measured is taken, then the end of a
    configuration, whose test rates are known, then the earlier one.
    """
    models: dict[Model, list[Configuration]] = {}
    for configuration in configurations:
        for model, one in _each(configuration):
            models.setdefault(model, []).append(one)
    best = [min(same, key=lambda one: (-len(one.measured), one.at is not None, one.number)) for same in models.values()]
    return tuple(sorted(best, key=lambda one: (one.number, one.at.number if one.at else 0)))


def _each(configuration: Configuration) -> Iterator[tuple[Model, Configuration]]:
    """Yield a configuration at its end, and at each earlier epoch that every one of its seeds has judged.

    A seed that was stopped early counts: a mean over the others would be one over those that were lucky. One that
    failed does not, as at the end.
    """
    judged = [trial for trial in configuration.trials if trial.state in {State.DONE, State.PRUNED}]
    trials = first_of_each_seed(trial for trial in judged if trial.val or judged_epochs(trial))
    if not trials:
        return
    (same, ends_at), setting, stage = model_of(trials[0]), epochs_setting(trials[0]), judged_stage(trials[0])
    if all(trial.val for trial in trials):
        yield (same, ends_at), configuration
    numbers = set.intersection(*(set(judged_epochs(trial)) for trial in trials))
    earlier = [AtEpoch(at, setting, stage.stage) for at in sorted(numbers) if stage and 0 < at < ends_at]
    for one in at_epochs(configuration, trials, earlier):
        yield (same, one.at.number if one.at else ends_at), one


def model_of(trial: TrialRecord, at: AtEpoch | None = None) -> Model:
    """Return what a trial's model is of, at its end or at an earlier epoch."""
    setting = epochs_setting(trial)
    number = get_path(trial.config, setting) if setting else 0
    ends_at = number if isinstance(number, int) else 0
    return json.dumps(_without(trial.config, setting), sort_keys=True), at.number if at else ends_at


def epochs_setting(trial: TrialRecord) -> str:
    """Return the path of the setting that counts the epochs of a trial's model; "" if they cannot be cut short."""
    stage = judged_stage(trial)
    path = f"defense.{_counted_by(stage.stage)}" if stage else ""
    return path if has_path(trial.config, path) else ""


@cache
def _counted_by(stage: str) -> str:
    try:
        return stage_named(stage).epochs or ""
    except UserError:  # of a plug-in that is not installed here
        return ""


def _without(config: JsonObject, setting: str) -> JsonObject:
    """Return a configuration without one setting of its defense."""
    part, _, name = setting.partition(".")
    of_part = config.get(part)
    return {**config, part: {**of_part, name: None}} if isinstance(of_part, dict) else config
