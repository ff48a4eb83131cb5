"""Launch a sweep: the study, checked here, goes to the cluster's job server, which runs `ubt sweep` on the head."""

from __future__ import annotations

import math
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from sweeps.detached.jobs import JobServer, new_job
from sweeps.run.job import COMMAND, OUT, SERVER
from sweeps.study.config import StudyConfig
from ubt.artifacts.remote_folder import is_address, place_of, shown
from ubt.common.ending import GRACE_SECONDS
from ubt.common.errors import Problem, UserError
from ubt.common.secrets import without_credentials

NAME = "ubt.name"
"""Names in a job's metadata."""
STUDY = "study.yaml"

STOP_SECONDS = 30.0
"""From `ubt stop` to the end of a sweep: no one waits at a terminal, and heads of clusters may be busy."""

_SPARE_SECONDS = 7
"""More than a sweep has for its end, before Ray kills what it stops: its own default, 3 s, would leave no report."""


@dataclass(frozen=True)
class Launched:
    """A sweep that a cluster runs now."""

    job: str
    server: str
    out: str
    name: str

    @property
    def run(self) -> str:
        """Return where its run folder is, unless that is in use already: then it has a number more."""
        return f"{self.out}/{self.name}"


def launch(
    study: StudyConfig,
    server: str,
    out: str = "~/runs",
    *,
    options: tuple[str, ...] = (),
    grace_seconds: float = STOP_SECONDS,
    command: str = "",
) -> Launched:
    """Have a cluster run a study, and return at once.

    Args:
        study: as `load_study` returns it; the paths in it are those of the cluster's nodes.
        server: address of the cluster's job server, `http://HOST:8265`.
        out: folder of run folders on the cluster's head, or an address such as `s3://bucket/runs`.
        options: of `ubt sweep`, as `--resume=auto`.
        grace_seconds: see `ubt sweep --grace`.
        command: what starts it again, for the messages of the sweep.

    Example:
        >>> launched = launch(load_study("paper"), "http://127.0.0.1:8265", "s3://bucket/runs")  # doctest: +SKIP
        >>> launched.job, launched.run  # doctest: +SKIP
        ('ubt-paper-5d0c1f9a', 's3://bucket/runs/paper')

    Raises:
        UserError: if the job server does not answer or refuses, or `out` would be another folder there.
    """
    place = place_of(out, "--out")
    if isinstance(place, Path) and not out.startswith(("/", "~")):
        advice = "write the whole path, as it is there, or an address such as s3://bucket/runs"
        raise UserError(Problem("--out", "is a folder of the cluster's head", out, advice))
    jobs, job = JobServer(server), new_job(study.name)
    words = ["ubt", "sweep", STUDY, "--address", "auto", "--out", out.rstrip("/"), *options]
    words += ["--grace", f"{grace_seconds:g}"] if grace_seconds != GRACE_SECONDS else []
    metadata = {
        SERVER: jobs.shown,
        OUT: shown(out.rstrip("/")),
        NAME: study.name,
        COMMAND: without_credentials(command),
    }
    with tempfile.TemporaryDirectory(prefix="ubt-launch-") as folder:
        # The study goes as a file, not as words: those are shown to all who see the cluster's jobs.
        Path(folder, STUDY).write_text(study_text(study), encoding="utf-8")
        patience = {"RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(grace_seconds) + _SPARE_SECONDS)}
        jobs.launch(job, f"exec {shlex.join(words)}", Path(folder), patience, metadata)
    return Launched(job, jobs.shown, metadata[OUT], study.name)


def study_text(study: StudyConfig) -> str:
    """Return a study as a file that says all of it."""
    return yaml.safe_dump(study.as_json(), sort_keys=False, allow_unicode=True)


def launched_text(found: Launched) -> str:
    """Return in words what runs, how to look at it, and where its results will be."""
    there = f"--address {shlex.quote(found.server)}"
    lines = [f"Launched {found.name} as job {found.job} of {found.server}. It runs without this machine."]
    lines += [f"  ubt {command:<14} {found.job} {there}" for command in ("status --watch", "logs --follow", "stop")]
    if is_address(found.out):
        lines.append(f"Run folder: {found.run}, or the next free number. Without the cluster:")
        lines += [f"  ubt {command:<14} {shlex.quote(found.run)}" for command in ("status", "report")]
    else:
        lines.append(f"Run folder: {found.run} on the cluster's head, or the next free number.")
        lines.append("  With --out s3://… it could be read from anywhere, also when the cluster is gone.")
    return "\n".join(lines)
