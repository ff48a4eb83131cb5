"""What the trials of a run come to together: who is on the front, who is chosen, means over seeds, the hypervolume.

Worked out when a sweep has ended, by what its report is made from; no trial knows it by itself. Loads no MLflow.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from analysis import Run, load_run
from analysis.figures.growth import growth
from analysis.findings import Findings
from analysis.points.configurations import Configuration, Outcome
from sweeps.tracking.payload import Point, Standing, milliseconds
from ubt.common.errors import UserError
from ubt.trials.record import TrialRecord

_log = logging.getLogger(__name__)


class RunOutcome:
    """What a run folder comes to, as it is now."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def findings(self) -> Findings:
        """Return configurations, front and choice."""
        return self.run.findings

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        """Return what each trial is, by name."""
        front, chosen = _epochs(self.findings.front), _epochs(filter(None, [self.findings.chosen]))
        return {
            trial.trial: Standing(front.get(_known_as(one), ""), chosen.get(_known_as(one), ""), dict(_means(one)))
            for one in self.findings.configurations
            for trial in one.trials
        }

    @cached_property
    def hypervolumes(self) -> tuple[Point, ...]:
        """Return the area that the front dominates after each trial that has ended, in the order of their ends.

        That of the last is the summary's. Empty in a comparison, which has no front, and without a known attack.
        """
        records = {record.trial: record for record in self.findings.run.records}
        return tuple(
            Point("hypervolume", grown.hypervolume, grown.trials, ended_ms(records[grown.trial]))
            for grown in growth(self.findings)
            if records[grown.trial].state.ended
        )


def outcome_of(folder: Path) -> RunOutcome | None:
    """Return what a run folder comes to; None if it cannot be read, or there are no records."""
    try:
        outcome = RunOutcome(load_run(folder))
        _ = outcome.findings
    except UserError as error:
        _log.debug("MLflow gets no outcome: %s", error)
        return None
    except Exception as error:  # MLflow shows the trials all the same  # noqa: BLE001
        _log.warning("MLflow gets no outcome: %s: %s", type(error).__name__, error)
        return None
    return outcome


def _epochs(among: Iterable[Configuration]) -> dict[str, str]:
    """Return at which epochs configurations are among some, by what each is known as: the end last."""
    numbers: dict[str, list[int]] = {}
    for one in among:
        numbers.setdefault(_known_as(one), []).append(one.at.number if one.at else _END)
    return {
        name: ", ".join("end" if number == _END else str(number) for number in sorted(found))
        for name, found in numbers.items()
    }


_END = sys.maxsize


def _known_as(one: Configuration) -> str:
    """Return what a configuration and each of its earlier epochs have in common: the name of its first trial."""
    return one.trials[0].trial


def _means(one: Configuration) -> Iterator[tuple[str, float]]:
    if one.seeds < 2 or not one.measured:
        return
    yield "mean/seeds", float(len(one.measured))
    splits: dict[str, Outcome | None] = {"test": one.test, "val": one.val}
    for split, found in splits.items():
        rates = {"asr": found.asr, "ca": found.ca} if found else {}
        for rate, estimate in rates.items():
            if estimate:
                yield f"mean/{split}_{rate}", estimate.mean
                yield f"mean/{split}_{rate}_low", estimate.low
                yield f"mean/{split}_{rate}_high", estimate.high


def ended_ms(record: TrialRecord) -> int:
    """Return when a trial ended, as far as is known."""
    return milliseconds(record.started_at) + round(1000 * record.seconds)
