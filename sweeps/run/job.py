"""The Ray job that a sweep runs as, if it is one: what Ray says of it, and the note of it in the run folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import ValidationError

from ubt.common.errors import Problem, UserError
from ubt.config import Config

JOB_FILE = "job.json"
"""In the run folder: the Ray job that worked in it last."""
SERVER, COMMAND, OUT = "ubt.server", "ubt.command", "ubt.out"
"""What `ubt launch` says of a job beside Ray's own facts."""

_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_ID = "job_submission_id"
_DELETED = "runtime_resources"
"""In Ray's folder for a session: what it unpacked for jobs, which it deletes again."""


class Job(Config):
    """A job of a cluster's job server."""

    id: str = ""
    """Empty in the note of a sweep that runs as none."""
    server: str = ""
    """Address of the job server, as the machine saw it where the job was launched; empty if that is not known."""
    command: str = ""
    """What launched it, without passwords."""

    @classmethod
    def of_this_process(cls) -> Job | None:
        """Return the job that this process runs as; None if it was not started by a job server."""
        try:
            said = json.loads(os.environ.get(_VARIABLE, "{}"))["metadata"]
            return cls(id=said[_ID], server=said.get(SERVER, ""), command=said.get(COMMAND, ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def read(cls, content: bytes | None) -> Job | None:
        """Return the job in the content of a note; None if there is none."""
        try:
            noted = cls.model_validate_json(content or b"")
        except ValidationError:
            return None
        return noted if noted.id else None

    @classmethod
    def noted_in(cls, run: Path) -> Job | None:
        """Return the job that worked in a run folder last; None if none did."""
        try:
            return cls.read((run / JOB_FILE).read_bytes())
        except OSError:
            return None


def check_lasting(run: Path) -> None:
    """Refuse a run folder that would be deleted with this process's job.

    Raises:
        UserError: if it lies where Ray unpacks a job's files.
    """
    if Job.of_this_process() and _DELETED in run.parts:
        message = "lies in the folder that Ray makes for this job, and deletes after it"
        advice = "give a folder that stays, by its whole path, or an address such as s3://bucket/runs"
        raise UserError(Problem("--out", message, str(run.parent), advice))
