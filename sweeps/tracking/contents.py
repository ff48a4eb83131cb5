"""What MLflow shall show, derived from the run folder: a run for the study and one for each record. Loads no MLflow."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.tracking import payload, study_payload
from sweeps.tracking.ledger import Ledger
from sweeps.tracking.payload import Payload, Standing
from ubt.common.errors import UserError
from ubt.common.hashing import digest_bytes, digest_file
from ubt.common.paths import RECORDS_FOLDER, REPORT_FOLDER, STUDY_FILE
from ubt.config import read_json
from ubt.trials.migration import migrated_study
from ubt.trials.record import TrialRecord, read_record

if TYPE_CHECKING:
    from sweeps.tracking.model.chosen import ChosenModel
    from sweeps.tracking.outcome import RunOutcome

STUDY = ""
"""The subject of the study's own run; those of trials are their names."""
_FORMAT = 2
"""Of what is shown: what an earlier version has sent is sent again."""


@dataclass(frozen=True)
class Content:
    """What one of MLflow's runs shall show."""

    subject: str
    name: str
    study: str
    """Name of the study, for a tag."""
    payload: Payload
    began_ms: int
    ended_ms: int
    digest: str
    """Of all that it shows."""
    files_digest: str
    documents: Mapping[str, str] = field(default_factory=dict)
    """Name of an artifact → its text."""
    folders: tuple[Path, ...] = ()
    """Folders whose files are artifacts, under their own names."""
    make: Callable[[Path], None] | None = None
    """Writes further artifacts into a folder."""
    model: ChosenModel | None = None
    """For MLflow's models."""
    of_experiment: Mapping[str, str] = field(default_factory=dict)
    """Tags of the experiment that the runs are in."""


class RunContents:
    """Reads a run folder as MLflow shall show it."""

    def __init__(self, folder: Path, model_limit_bytes: int = 0) -> None:
        self.folder, self._records, self._report = folder, folder / RECORDS_FOLDER, folder / REPORT_FOLDER
        self._model_limit_bytes = model_limit_bytes
        self.at_work: set[str] = set()
        """Trials that run now; where another one's record says so, a sweep was cut off."""
        self._status, self._outcomes = "RUNNING", _Outcomes(folder, live=True)

    @property
    def status(self) -> str:
        """Return how the study's run stands; as long as it is RUNNING, what all trials come to is worked out seldom."""
        return self._status

    @status.setter
    def status(self, status: str) -> None:
        self._status, self._outcomes = status, _Outcomes(self.folder, live=status == "RUNNING")

    def moved(self) -> set[str]:
        """Return the trials that have become something else among the others since this was asked last."""
        moved, self._outcomes.moved = self._outcomes.moved, set()
        return moved

    @cached_property
    def began_ms(self) -> int:
        """Return when the study began: with its first trial, as far as is known."""
        for path in sorted(self._records.glob("*.json"))[:1]:
            with suppress(UserError):
                return payload.milliseconds(read_record(path).started_at) or _changed_ms(path)
        return _changed_ms(self.folder / STUDY_FILE)

    @property
    def status_by_records(self) -> str:
        """Return how a sweep stands whose end was not recorded: complete as far as one can tell, or cut off."""
        ended = (self._report / "summary.json").exists()
        for path in self._records.glob("*.json"):
            with suppress(UserError):  # one that is damaged says nothing
                ended = ended and read_record(path).state.ended
        return "FINISHED" if ended else "KILLED"

    def subjects(self) -> list[str]:
        """Return all that there is to show, the study first."""
        return [STUDY, *(path.stem for path in sorted(self._records.glob("*.json")))]

    def differing(self, subject: str, ledger: Ledger) -> Content | None:
        """Return what MLflow shall show of a subject; None if it has that, or nothing readable is there.

        Raises:
            OSError: if a file cannot be read.
        """
        with suppress(FileNotFoundError, UserError):  # a record that is none stops a resume, which says so
            return self._of_study(ledger) if subject == STUDY else self._of_trial(subject, ledger)
        return None

    def _of_study(self, ledger: Ledger) -> Content | None:
        text = (self.folder / STUDY_FILE).read_text(encoding="utf-8")
        study = migrated_study(read_json(self.folder / STUDY_FILE))
        shown = study_payload.of_study(study, self.folder, ledger.source)
        view = study_payload.view_of(study, ledger.identity)
        files, made, running = list[Path](), None, self.status == "RUNNING"
        if not running:
            files = sorted(path for path in self._report.rglob("*") if path.is_file())
        if outcome := self._outcomes.now():
            from sweeps.tracking.description import of_outcome, view_of  # noqa: PLC0415 — as below
            from sweeps.tracking.files import MadeFiles  # noqa: PLC0415

            if self.status == "FINISHED":  # of one that was cut off there is no time
                made = MadeFiles(outcome.findings, self._model_limit_bytes)
            names = [*(path.relative_to(self.folder).as_posix() for path in files), *(made.names if made else ())]
            shown = of_outcome(shown, outcome, self.folder, names, running)
            view = view_of(view, outcome)
        shown = replace(shown, status=self.status)
        content = Content(
            subject=STUDY,
            name=self.folder.name,
            study=self.folder.name,
            payload=shown,
            began_ms=self.began_ms,
            ended_ms=max(map(_changed_ms, [self.folder / STUDY_FILE, *self._records.glob("*.json"), *files])),
            digest=_digest(text, [asdict(shown), view.tags()]),
            files_digest=_digest(
                text,
                [[str(path.relative_to(self._report)), digest_file(path)] for path in files]
                + [made.names if made else []],
            ),
            documents={STUDY_FILE: text},
            folders=(self._report,) if files else (),
            make=made.write if made else None,
            model=made.model if made else None,
            of_experiment=view.tags(),
        )
        return None if ledger.has(STUDY, content.digest, content.files_digest) else content

    def _of_trial(self, trial: str, ledger: Ledger) -> Content | None:
        path = self._records / f"{trial}.json"
        text = path.read_text(encoding="utf-8")
        at_work, standing = trial in self.at_work, self._standing(trial)
        digest = _digest(text, [at_work, asdict(standing) if standing else None])
        files_digest = _digest(text, None)
        if ledger.has(trial, digest, files_digest):
            return None
        record = read_record(path)
        began = payload.milliseconds(record.started_at)
        return Content(
            subject=trial,
            name=payload.run_name_of(record),
            study=record.study,
            payload=_of_trial(record, at_work, standing),
            began_ms=began or _changed_ms(path),
            ended_ms=began + round(1000 * record.seconds) if began else _changed_ms(path),
            digest=digest,
            files_digest=files_digest,
            documents={"record.json": text},
        )

    def _standing(self, trial: str) -> Standing | None:
        """Return what a trial is among the others, as was worked out last; None if that is nothing to show."""
        outcome = self._outcomes.last if self.status == "RUNNING" else self._outcomes.now()
        return (outcome.standings.get(trial) or None) if outcome else None


class _Outcomes:
    """What a run comes to: worked out once when it has ended, and seldom while it runs.

    It takes pandas and all records, in the process that runs the sweep: a twentieth of the time at most.
    """

    def __init__(self, folder: Path, live: bool) -> None:
        self._folder, self._live = folder, live
        self._due = time.monotonic() + (LIVE_SECONDS if live else 0)
        self.last: RunOutcome | None = None
        self.moved: set[str] = set()
        """Trials that have become something else among the others."""

    def now(self) -> RunOutcome | None:
        """Return what the run comes to, as it was at most a while ago; None if that is not known."""
        began = time.monotonic()
        if began < self._due:
            return self.last
        from sweeps.tracking.outcome import outcome_of  # noqa: PLC0415 — pandas and plotly, in the sender's thread

        before, self.last = self.last, outcome_of(self._folder)
        if self._live:
            self.moved |= _differing(before.standings if before else {}, self.last.standings if self.last else {})
            took = time.monotonic() - began
            self._due = time.monotonic() + max(LIVE_SECONDS, _SHARE * took)
        else:
            self._due = math.inf
        return self.last


LIVE_SECONDS = 30.0
"""How old what is shown of all trials may be while they run: of a sweep that is shorter it is shown at the end."""
_SHARE = 20


def _differing(before: Mapping[str, Standing], after: Mapping[str, Standing]) -> set[str]:
    nothing = Standing()
    return {name for name in {*before, *after} if before.get(name, nothing) != after.get(name, nothing)}


def _of_trial(record: TrialRecord, at_work: bool, standing: Standing | None) -> Payload:
    shown = payload.of_trial(record)
    if shown.status == "RUNNING" and not at_work:
        shown = replace(shown, status="KILLED")
    standing = standing or Standing()
    return replace(shown, tags={**shown.tags, **standing.tags}, metrics={**shown.metrics, **standing.means})


def _digest(text: str, rest: object) -> str:
    shown = f"{_FORMAT}\0{text}\0{json.dumps(rest, sort_keys=True, default=str)}"
    return digest_bytes(shown.encode())[:32]


def _changed_ms(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000
