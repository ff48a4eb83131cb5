"""What MLflow has confirmed of a run folder, kept in the folder: `RUN/tracked/`. Loads no MLflow.

A study has a run of its own in MLflow and one for each record. What was confirmed is remembered by digests, together
with the id of MLflow's run: a server that does not know that run has not confirmed it, be it another one or one whose
database is new.
"""

from __future__ import annotations

import getpass
import json
import shlex
import sys
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ubt.common.atomic_files import write_whole
from ubt.common.secrets import without_credentials


@dataclass(frozen=True)
class Source:
    """What started a sweep last; empty where that was not noted."""

    command: str = ""
    """As it was typed, without passwords in addresses."""
    user: str = ""

    @classmethod
    def of_this_process(cls) -> Source:
        """Return the command and the user of this process."""
        program, *arguments = sys.argv or [""]
        name = Path(program).name
        started = ["python", "-m", Path(program).parent.name] if name == "__main__.py" else [name]
        user = ""
        with suppress(OSError, KeyError, ImportError):  # a container may have no name for its user
            user = getpass.getuser()
        return cls(without_credentials(shlex.join([*started, *arguments])), user)


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
        self.source = Source()
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

    def note_source(self, source: Source) -> None:
        """Remember what started the sweep."""
        self.source = source
        self._append({"source": asdict(source)})

    def confirm(self, subject: str, entry: Confirmed) -> None:
        """Remember what MLflow has. A line that is lost, to a full disk say, is sent again, which changes nothing."""
        self.confirmed[subject] = entry
        self._append({"subject": subject, **asdict(entry)})

    def unsettle(self, subject: str) -> None:
        """Have what a subject shows sent again, but not its files: it names what was not in MLflow then."""
        if subject in self.confirmed:
            self.confirm(subject, replace(self.confirmed[subject], digest=""))

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
            elif "source" in found:
                self.source = Source(**found["source"])
            else:
                subject = found.pop("subject")
                self.confirmed[subject] = Confirmed(**found)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # a line of which a part was written

    def _append(self, line: Mapping[str, object]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                # The line's end first: the line before may be a part of one.
                stream.write(f"\n{json.dumps(line)}")
        except OSError:
            return
