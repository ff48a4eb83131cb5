"""What a sweep is expected to take: its plan, kept in the run folder, and the progress that is seen against it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache

from sweeps.planning.costs import SizesOf, sizes_in
from sweeps.planning.plan import Forecast, plan_of
from sweeps.planning.time_left import TimeLeft
from sweeps.planning.trials import TrialPlanner
from sweeps.run.folder import RunFolder
from sweeps.run.progress import Tally
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import default_store
from ubt.common.atomic_files import write_whole
from ubt.common.errors import UserError
from ubt.common.paths import is_file
from ubt.config.base import kind_of
from ubt.data import content_key
from ubt.trials.planned import PLAN_FILE, PlannedData

logger = logging.getLogger(__name__)


def expected(study: StudyConfig, run: RunFolder, workers: int) -> Tally:
    """Return what counts the trials of a sweep and says how long it still takes, by the plan of what is left to do.

    The plan of a new run is written into its folder, for the report to set it against what it took.
    """
    sizes = cache(sizes_in(study.store or default_store()))
    forecast = Forecast.of(study, sizes)
    path = run.path / PLAN_FILE
    if not is_file(path):
        try:
            costs = plan_of(study, forecast, workers).costs()
            costs = costs.model_copy(update={"data": tuple(_data_of(forecast, sizes))})
            write_whole(path, costs.model_dump_json(indent=1) + "\n")
        except OSError as error:  # of a full disk the trials will tell; the plan is not worth a sweep
            logger.warning("what the sweep is planned to take cannot be written down: %s", error)
    planner = TrialPlanner(study, study.store or default_store())
    left = TimeLeft(forecast, planner, len(study.seeds), workers)
    return Tally(study.trials, study.ca_floor, rule=study.rule, time_left=left, every_epoch=study.every_epoch)


def _data_of(forecast: Forecast, sizes: SizesOf) -> Iterator[PlannedData]:
    """Yield each data set that trials are run on, with its fingerprint, as far as it can be read here."""
    victims = {id(trial.victim): trial.victim for trial, _ in forecast.laid.everything}
    for data in dict.fromkeys(victim.data for victim in victims.values()):
        try:
            key = content_key(data)
        except UserError:  # which the plan notes
            continue
        found = sizes(data)
        counts = found.model_dump(include={"train", "pretrain", "val", "test"}) if found else {}
        yield PlannedData(kind=kind_of(type(data)), key=key, counts=counts)
