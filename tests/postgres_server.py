"""A PostgreSQL server for tests: Debian's, in a folder of its own, on a loopback port, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

USER, PASSWORD = "ubt", "s3cret/pass"
_SECONDS = 60


class PostgresServer:
    """One server. It may be ended, killed and started again on the same port with what it holds."""

    def __init__(self, programs: Path, folder: Path, account: str | None) -> None:
        """`account` is whom the server runs as where we are root, as whom it refuses to run."""
        self._programs, self._folder, self._account = programs, folder, account
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def create(self) -> None:
        """Make the server's files."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._account:
            for path in (self._folder, secret):
                shutil.chown(path, self._account)
        words = ["--no-sync", "--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256", "-E", "UTF8"]
        self._run("initdb", "--pgdata", str(self._data), *words)

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "--pgdata", str(self._data), "-w", "-t", str(_SECONDS), "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """End it now, with every connection; also if it does not run."""
        self._run("pg_ctl", "--pgdata", str(self._data), "-w", "-m", "immediate", "stop", check=False)

    def kill(self) -> None:
        """Kill the main process as kill -9 does; its children notice and end."""
        os.kill(self.pid, signal.SIGKILL)
        # In a container its end may go unnoticed, and the next start would wait for it.
        (self._data / "postmaster.pid").unlink()

    @property
    def pid(self) -> int:
        """Return the id of the server's main process."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def new_database(self, password: str = PASSWORD) -> str:
        """Make an empty database and return its address."""
        import psycopg

        name = f"db_{uuid4().hex}"
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.address(name, password)

    def address(self, database: str, password: str = PASSWORD) -> str:
        """Return the address of a database."""
        return f"postgresql://{USER}:{password.replace('/', '%2F')}@127.0.0.1:{self.port}/{database}"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *words: str, check: bool = True) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no pipe: the server would hold it open
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            user=self._account,
            group=pwd.getpwnam(self._account).pw_gid if self._account else None,
            extra_groups=[] if self._account else None,
            start_new_session=True,  # a Ctrl-C that a test sends to its own group is not for the server
            timeout=2 * _SECONDS,
            check=False,
        )
        if check and done.returncode:
            log = self._folder / "log"
            raise RuntimeError(f"{program} ended with {done.returncode}: {log.read_text() if log.exists() else ''}")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server for a while; the test is skipped where PostgreSQL, its driver or an account for it is missing."""
    pytest.importorskip("psycopg", reason="install ubt-sweeper[postgres] to test with PostgreSQL")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql-15)")
    account = _account() if os.geteuid() == 0 else None
    # Not pytest's folder: that one is its user's alone.
    folder = Path(tempfile.mkdtemp(prefix="ubt-postgres-"))
    server = PostgresServer(programs, folder, account)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Return the folder of the newest PostgreSQL: Debian keeps several apart, and has them in no PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = shutil.which("initdb")
    return debian[-1].parent if debian else Path(found).resolve().parent if found else None


def _account() -> str:
    """Return an account without rights for the server."""
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    pytest.skip("PostgreSQL does not run as root, and there is no account for it")
