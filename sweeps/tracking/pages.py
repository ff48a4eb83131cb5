"""Where in MLflow a run is to be looked at: its prepared pages, and the page of its study. Loads MLflow when asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweeps.tracking.config import TrackingSettings
from sweeps.tracking.delivery import prepare_environment
from sweeps.tracking.faults import fault_of
from sweeps.tracking.ledger import Ledger
from sweeps.tracking.view import TAG, View, page_address, run_address

_SUPPORTED = ("3",)
"""Major versions of MLflow that have pages in the form that is written here."""


@dataclass(frozen=True)
class Pages:
    """A run's pages in one MLflow."""

    experiment: str
    run: str
    """Id of the study's run."""
    key: str = ""
    """Of the prepared page; empty if there is none, or the server is not known to have such pages."""
    front_key: str = ""

    def addresses(self, server: str) -> dict[str, str]:
        """Return what each page is, and its address on a server; the one to open first."""
        prepared = {
            "all trials": page_address(server, self.experiment, self.key),
            "as a table": page_address(server, self.experiment, self.key, charts=False),
        }
        if self.front_key:
            prepared["the front by epoch"] = page_address(server, self.experiment, self.front_key)
        return {**prepared, "what came of it": run_address(server, self.experiment, self.run)}


def pages_of(settings: TrackingSettings, run_folder: Path, version: str) -> Pages | None:
    """Return where a run is to be looked at; None if MLflow does not have it.

    Args:
        settings: say which MLflow it is.
        run_folder: of the run.
        version: of the server.

    Raises:
        TrackingFault: if MLflow does not answer, or lets no one in.
    """
    ledger = Ledger(run_folder)
    prepare_environment()
    try:
        from sweeps.tracking.mlflow_sink import found_in  # noqa: PLC0415 — MLflow, 2 s

        found = found_in(settings.address(run_folder), settings.experiment, ledger.identity)
    except Exception as error:
        raise fault_of(error, connecting=True) from error
    if found is None:
        return None
    experiment, run, tags = found
    view = View(ledger.identity, ())
    has = [key if TAG + key in tags and version.partition(".")[0] in _SUPPORTED else "" for key in
           (view.key, view.front_key)]  # fmt: skip
    return Pages(experiment, run, *has)
