"""Runs sent to MLflow after their sweeps: what it lacks or everything anew, to their own address or another one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sweeps.run.folder import tracking_of
from sweeps.run.places import run_at
from sweeps.tracking import Left, Tracker, TrackingSettings
from sweeps.tracking.config import sqlite_path
from ubt.artifacts.remote_folder import shown
from ubt.common.errors import Problem, UserError
from ubt.common.paths import STUDY_FILE
from ubt.config import validate

PATIENCE_SECONDS = 60.0
"""How long `track` waits for any progress."""

Show = Callable[[str], None]


def settings_for(run_folder: Path | str, uri: str | None = None) -> tuple[TrackingSettings, str]:
    """Return where to send a run, and what says so: an address given, else MLFLOW_TRACKING_URI, else its study.

    Raises:
        UserError: if the folder is no run, the address is none, or there is none.
    """
    study = tracking_of(run_folder)
    for where, address in (("--uri", uri), ("MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI"))):
        if address:
            given = {**study.model_dump(exclude={"enabled"}), "uri": address}
            return validate(TrackingSettings, given, where), where
    if not study.enabled:
        advice = "say where to send it: --uri sqlite:///FILE, postgresql://… or https://…"
        raise UserError(Problem(shown(run_folder), "its study is not tracked (tracking.enabled: false)", advice=advice))
    return study, STUDY_FILE


def track(
    run_folder: Path | str,
    show: Show,
    uri: str | None = None,
    anew: bool = False,
    patience_seconds: float | None = None,
) -> Left:
    """Send what MLflow lacks of a run, as long as there is progress, and return what is left.

    Args:
        run_folder: of the run, or its address; then its folder in the cache of this machine is what is sent.
        show: told where it is sent, how far that is, and what is in the way.
        uri: address of MLflow, with user and password if it wants them; as `settings_for` if left out.
        anew: send everything, also what MLflow has confirmed.
        patience_seconds: how long to wait without any progress.

    Raises:
        UserError: as `settings_for`, or if a sweep is at work in the folder, which sends it by itself.
    """
    settings, said_by = settings_for(run_folder, uri)
    with ExitStack() as held:
        try:
            run = held.enter_context(run_at(run_folder).taken())
        except UserError as error:
            advice = "nothing need be done: a sweep sends it by itself, and says at its end what is left"
            raise UserError(replace(problem, advice=advice) for problem in error.problems) from error
        tracker = Tracker(settings, run.path)
        show(f"{run.shown}: to MLflow at {tracker.uri} (from {said_by})")

        def tell(runs: int, reason: str) -> None:
            show(f"{run.shown}: {runs} of MLflow's runs to look at" + (f"; waiting: {reason}" if reason else ""))

        return tracker.catch_up(tell, patience_seconds or PATIENCE_SECONDS, anew)


def runs_in(database: Path) -> list[Path]:
    """Return the run folders beside a database that are tracked in it."""
    found = []
    for study in sorted(database.parent.glob(f"*/{STUDY_FILE}")):
        try:
            settings = tracking_of(study.parent)
        except UserError:
            continue
        if settings.enabled and sqlite_path(settings.address(study.parent)) == database:
            found.append(study.parent)
    return found


def ready_to_show(address: str, show: Show) -> None:
    """See to it that a database can be looked at: a broken one is set aside, and filled anew from its runs.

    Raises:
        UserError: if MLflow cannot use it, and it is not ours to replace.
    """
    database = sqlite_path(address)
    if database is None or not database.exists():
        return
    from sweeps.tracking.database import made_ready, mended_addresses  # noqa: PLC0415 — MLflow, 2 s
    from sweeps.tracking.delivery import prepare_environment  # noqa: PLC0415
    from sweeps.tracking.faults import TrackingFault, fault_of  # noqa: PLC0415

    prepare_environment()
    try:
        aside = made_ready(database)
        if mended := mended_addresses(database):
            show(f"{database} was moved: files of {mended} of MLflow's runs are found beside it again")
    except (TrackingFault, OSError, sqlite3.DatabaseError) as error:
        fault = fault_of(error)
        raise UserError(Problem(str(database), str(fault), advice=fault.advice or "try again later")) from error
    for run in runs_in(database) if aside else ():
        try:
            left = track(run, show, address)
        except UserError as error:
            show(f"{run}: {error.problems[0].message}")
            continue
        if left.runs:
            show(f"{run}: {left.runs} of MLflow's runs are not sent ({left.reason}); `ubt track {run}` sends them")
