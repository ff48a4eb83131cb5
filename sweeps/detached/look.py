"""A look at what the user names, a run or a job: the run of a job, the job of a run, and how both are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeps.detached.jobs import JobServer, JobState, server_address
from sweeps.detached.launch import NAME
from sweeps.detached.status import RunStatus, read_status, status_text
from sweeps.run.job import JOB_FILE, OUT, Job
from sweeps.run.places import run_at
from ubt.artifacts.remote_folder import RemoteFolder, at_hand, is_address, place_of
from ubt.common.errors import Problem, UserError
from ubt.common.exits import Exit

_LINES = 20


@dataclass(frozen=True)
class Look:
    """What a look has shown."""

    run: RunStatus | None
    """None for a job whose run has not begun, or cannot be seen from here."""
    job: str = ""
    server: str = ""
    state: JobState | None = None
    """None if no job server was asked."""

    @property
    def goes_on(self) -> bool:
        """Return whether there will be something else to see."""
        return not self.state.ended if self.state else bool(self.run and self.run.at_work)

    @property
    def status(self) -> int:
        """Return the exit status of who waited for the end."""
        if self.run:
            return self.run.status
        return Exit.DONE if self.state and self.state.status == "SUCCEEDED" else Exit.FAULT

    @property
    def text(self) -> str:
        """Return it in words."""
        lines = [status_text(self.run)] if self.run else []
        if self.state:
            lines.append(f"  job      {self.job} at {self.server}: {self.state.status}")
        if self.state and not self.run:
            lines += [f"  {line}" for line in self.state.message.splitlines()[-_LINES:]]
            out = self.state.metadata.get(OUT)
            lines += [f"  its run will be in {out}, or is there, out of sight from here: see `ubt logs`"] if out else []
        return "\n".join(lines)

    @property
    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        run = self.run.model_dump(mode="json") if self.run else None
        job = {"id": self.job, "server": self.server, **asdict(self.state)} if self.state else None
        return {"run": run, "job": job}


class Looker:
    """Looks at a run, or at a job and its run, as often as is wanted."""

    def __init__(self, given: str, address: str | None) -> None:
        """Prepare.

        Args:
            given: a run's folder or address, or a job's id.
            address: of the job server; for a run it is asked only if it is given.
        """
        self._given, self._is_run = given, is_run(given)
        self._server: JobServer | None = None
        if not self._is_run:
            self._server = JobServer(server_address(address))
        elif address:
            self._server = JobServer(address)

    def look(self) -> Look:
        """Look now.

        Raises:
            UserError: if there is nothing of that name, or it cannot be read.
        """
        if self._is_run:
            run = read_status(self._given)
            if not self._server or not run.job:
                return Look(run)
            return Look(run, run.job, self._server.shown, self._server.state(run.job))
        assert self._server is not None  # noqa: S101 — for the type checker
        state = self._server.state(self._given)
        place = run_of(self._given, state)
        return Look(read_status(place) if place else None, self._given, self._server.shown, state)


def is_run(given: str) -> bool:
    """Tell whether what was given is a run's folder or address, and no job's id."""
    return is_address(given) or "/" in given or Path(given).exists()


def run_of(job: str, state: JobState) -> str | None:
    """Return where the run of a job is; None while it has none, or if that cannot be seen from here."""
    out, name = state.metadata.get(OUT, ""), state.metadata.get(NAME, "")
    if not out or not name:
        return None
    with suppress(UserError):  # this machine need not be let in there
        place = place_of(out, "--out")
        if isinstance(place, Path):
            runs = [str(run) for run in place.glob(f"{name}*") if _works_in(job, run)]
        else:
            names = [found for found in RemoteFolder(place).folders() if found.startswith(name)]
            runs = [run for run in (f"{place}/{found}" for found in names) if _works_in(job, run)]
        return next(iter(runs), None)
    return None


def _works_in(job: str, run: Path | str) -> bool:
    noted = Job.noted_in(run) if isinstance(run, Path) else Job.read(RemoteFolder(run).read(JOB_FILE))
    return noted is not None and noted.id == job


def job_of(given: str, address: str | None) -> tuple[str, str]:
    """Return the id of a job and the address of its server, for what was given: the id, or its run.

    Raises:
        UserError: if no job is noted in the run, or its server is not known.
    """
    if not is_run(given):
        return given, server_address(address)
    with at_hand(given, (JOB_FILE,)) as folder:
        job = Job.noted_in(folder)
    if job is None:
        advice = "was it started by `ubt sweep` in a shell? Then look, and end it, there"
        raise UserError(Problem(run_at(given).shown, "no job of a cluster works in this run", advice=advice))
    return job.id, server_address(address, job.server)
