"""What MLflow shall show, derived from the run folder, and what of that it has confirmed.

A study has a run of its own and one for each record. What MLflow confirmed is remembered by digests in
`RUN/tracked/confirmed.jsonl`, together with the id of MLflow's run: a server that does not know that run has not
confirmed it, be it another one or one whose database is new. Loads no MLflow.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from sweeps.tracking import payload
from sweeps.tracking.payload import Payload
from ubt.common.atomic_files import write_whole
from ubt.common.errors import UserError
from ubt.common.hashing import digest_bytes, digest_file
from ubt.common.paths import RECORDS_FOLDER, REPORT_FOLDER, STUDY_FILE
from ubt.config import read_json
from ubt.config.dotted_paths import JsonObject
from ubt.trials.migration import migrated_study
from ubt.trials.record import read_record

STUDY = ""
"""The subject of the study's own run; those of trials are their names."""


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
    folder: Path | None = None
    """A folder whose files are artifacts, under its own name."""


@dataclass(frozen=True)
class Confirmed:
    """What MLflow has of a subject."""

    run: str
    """Id of MLflow's run."""
    digest: str
    files_digest: str
    refused: str = ""
    """Why MLflow will never take this content; it counts as settled."""


class Ledger:
    """What MLflow has confirmed, one line each time; the last one about a subject counts."""

    def __init__(self, run_folder: Path) -> None:
        self._folder, self._old_identity = run_folder / "tracked", run_folder / "outbox" / "identity"
        self._path = self._folder / "confirmed.jsonl"
        self.confirmed: dict[str, Confirmed] = {}
        self.status = ""
        """How the study's run stood last: RUNNING, FINISHED or KILLED; empty if that was not noted."""
        with suppress(OSError):
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._read(line)

    @property
    def identity(self) -> str:
        """Return the tag under which MLflow's runs are found again; made once for each run folder.

        The study's name does not do: a second run of one study beside the first shares its database.

        Raises:
            OSError: if it can be neither read nor written.
        """
        for path in (self._folder / "identity", self._old_identity):
            if path.exists() and (known := path.read_text(encoding="utf-8").strip()):
                return known
        made = uuid.uuid4().hex
        write_whole(self._folder / "identity", made)
        return made

    def note_status(self, status: str) -> None:
        """Remember how the sweep stands, for the process that sends the rest later."""
        self.status = status
        self._append({"status": status})

    def confirm(self, subject: str, entry: Confirmed) -> None:
        """Remember what MLflow has. A line that is lost, to a full disk say, is sent again, which changes nothing."""
        self.confirmed[subject] = entry
        self._append({"subject": subject, **asdict(entry)})

    def has(self, subject: str, digest: str, files_digest: str) -> bool:
        """Tell whether MLflow has this content, or has refused it for good."""
        entry = self.confirmed.get(subject)
        return entry is not None and (entry.digest, entry.files_digest) == (digest, files_digest)

    def keep(self, runs: Mapping[str, str]) -> set[str]:
        """Keep what lies in these runs (subject → id) and return the subjects of the rest."""
        gone = {subject for subject, entry in self.confirmed.items() if runs.get(subject, "") != entry.run}
        for subject in gone:
            del self.confirmed[subject]
        return gone

    def _read(self, line: str) -> None:
        try:
            found = json.loads(line)
            if "status" in found:
                self.status = str(found["status"])
            else:
                subject = found.pop("subject")
                self.confirmed[subject] = Confirmed(**found)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # a line of which a part was written

    def _append(self, line: Mapping[str, str]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                # The line's end first: the line before may be a part of one.
                stream.write(f"\n{json.dumps(line)}")
        except OSError:
            return


class RunContents:
    """Reads a run folder as MLflow shall show it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._records, self._report = folder, folder / RECORDS_FOLDER, folder / REPORT_FOLDER
        self.status = "RUNNING"
        """Of the study's run."""
        self.at_work: set[str] = set()
        """Trials that run now; where another one's record says so, a sweep was cut off."""
        self._summary_read: tuple[int, JsonObject] = (0, {})

    @cached_property
    def searched(self) -> list[str]:
        """Return the dotted paths of the search space: shown even where a trial has the base's value."""
        search = migrated_study(read_json(self.folder / STUDY_FILE)).get("search")
        space = search.get("space") if isinstance(search, dict) else None
        return list(space) if isinstance(space, dict) else []

    @cached_property
    def began_ms(self) -> int:
        """Return when the study began: with its first trial, as far as is known."""
        for path in sorted(self._records.glob("*.json"))[:1]:
            with suppress(UserError):
                return _milliseconds(read_record(path).started_at) or _changed_ms(path)
        return _changed_ms(self.folder / STUDY_FILE)

    @property
    def status_by_records(self) -> str:
        """Return how a sweep stands whose end was not recorded: complete as far as one can tell, or cut off."""
        ended = True
        for path in self._records.glob("*.json"):
            with suppress(UserError):  # one that is damaged says nothing
                ended = ended and read_record(path).state.ended
        return "FINISHED" if self._summary and ended else "KILLED"

    def subjects(self) -> list[str]:
        """Return all that there is to show, the study first."""
        return [STUDY, *(path.stem for path in sorted(self._records.glob("*.json")))]

    def differing(self, subject: str, ledger: Ledger) -> Content | None:
        """Return what MLflow shall show of a subject; None if it has that, or nothing readable is there.

        Raises:
            OSError: if a file cannot be read.
        """
        with suppress(FileNotFoundError, UserError):  # a record that is none stops a resume, which says so
            return self._study(ledger) if subject == STUDY else self._trial(subject, ledger)
        return None

    def _study(self, ledger: Ledger) -> Content | None:
        text = (self.folder / STUDY_FILE).read_text(encoding="utf-8")
        shown = replace(payload.of_study(read_json(self.folder / STUDY_FILE)), status=self.status)
        documents, files = {STUDY_FILE: text}, list[Path]()
        if self.status != "RUNNING":
            files = sorted(path for path in self._report.rglob("*") if path.is_file())
            summary = self._summary
            numbers = payload.of_summary(summary, self.status == "FINISHED").metrics
            tags = {"front": payload.text_of(", ".join(_front(summary)))}
            shown = replace(shown, metrics=numbers, tags=tags)
            if (table := self._report / "front.csv") in files:
                documents["front.csv"] = table.read_text(encoding="utf-8")
        content = Content(
            subject=STUDY,
            name=self.folder.name,
            study=self.folder.name,
            payload=shown,
            began_ms=self.began_ms,
            ended_ms=max(map(_changed_ms, [self.folder / STUDY_FILE, *self._records.glob("*.json"), *files])),
            digest=_digest(text, asdict(shown)),
            files_digest=_digest(text, [[str(path.relative_to(self._report)), digest_file(path)] for path in files]),
            documents=documents,
            folder=self._report if files else None,
        )
        return None if ledger.has(STUDY, content.digest, content.files_digest) else content

    def _trial(self, trial: str, ledger: Ledger) -> Content | None:
        path = self._records / f"{trial}.json"
        text = path.read_text(encoding="utf-8")
        front = None if self.status == "RUNNING" else "true" if trial in _front(self._summary) else "false"
        at_work = trial in self.at_work
        digest, files_digest = _digest(text, [at_work, front, self.searched]), _digest(text, None)
        if ledger.has(trial, digest, files_digest):
            return None
        record = read_record(path)
        shown = payload.of_trial(record, self.searched)
        if shown.status == "RUNNING" and not at_work:
            shown = replace(shown, status="KILLED")
        if front:
            shown = replace(shown, tags={**shown.tags, "front": front})
        began = _milliseconds(record.started_at)
        return Content(
            subject=trial,
            name=trial,
            study=record.study,
            payload=shown,
            began_ms=began or _changed_ms(path),
            ended_ms=began + round(1000 * record.seconds) if began else _changed_ms(path),
            digest=digest,
            files_digest=files_digest,
            documents={"record.json": text},
        )

    @property
    def _summary(self) -> JsonObject:
        """Return the report's summary; {} while there is none."""
        path = self._report / "summary.json"
        changed = path.stat().st_mtime_ns if path.exists() else 0
        if changed != self._summary_read[0]:
            with suppress(UserError):
                self._summary_read = (changed, read_json(path))
        return self._summary_read[1] if changed else {}


def _front(summary: JsonObject) -> list[str]:
    front = summary.get("front")
    return [str(trial) for trial in front] if isinstance(front, list) else []


def _digest(text: str, rest: object) -> str:
    return digest_bytes(f"{text}\0{json.dumps(rest, sort_keys=True, default=str)}".encode())[:32]


def _changed_ms(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000


def _milliseconds(utc: str) -> int:
    """Return an ISO time as MLflow wants it, or 0 if there is none."""
    try:
        moment = datetime.fromisoformat(utc)
    except ValueError:
        return 0
    return round(1000 * (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
