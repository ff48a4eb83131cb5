"""What a sweep is expected to take: its plan, kept in the run folder, and the progress that is seen against it."""

from __future__ import annotations

import logging

from sweeps.planning.plan import Forecast, plan_of
from sweeps.planning.time_left import TimeLeft
from sweeps.planning.trials import TrialPlanner
from sweeps.run.folder import RunFolder
from sweeps.run.progress import Tally
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import default_store
from ubt.common.atomic_files import write_whole
from ubt.common.paths import is_file
from ubt.trials.planned import PLAN_FILE

logger = logging.getLogger(__name__)


def expected(study: StudyConfig, run: RunFolder, workers: int) -> Tally:
    """Return what counts the trials of a sweep and says how long it still takes, by the plan of what is left to do.

    The plan of a new run is written into its folder, for the report to set it against what it took.
    """
    forecast = Forecast.of(study)
    path = run.path / PLAN_FILE
    if not is_file(path):
        try:
            write_whole(path, plan_of(study, forecast, workers).costs().model_dump_json(indent=1) + "\n")
        except OSError as error:  # of a full disk the trials will tell; the plan is not worth a sweep
            logger.warning("what the sweep is planned to take cannot be written down: %s", error)
    planner = TrialPlanner(study, study.store or default_store())
    left = TimeLeft(forecast, planner, len(study.seeds), workers)
    return Tally(study.trials, study.ca_floor, rule=study.rule, time_left=left)
