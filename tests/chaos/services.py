"""What a sweep depends on, as real processes on loopback ports that may be killed and started again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from postgres_server import PostgresServer, postgres_server
from proxy import Proxy

BUCKET = "chaos"
START_SECONDS = 180.0


class Service(Protocol):
    """A server that may die and come back with what it holds."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def kill(self) -> None:
        """Kill it as kill -9 does."""


class Program:
    """A server that is a program of its own, with all its children in one process group."""

    def __init__(self, words: list[str], port: int, log: Path, environment: dict[str, str] | None = None) -> None:
        self._words, self._port, self._log = words, port, log
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._words, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not answers(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._words} does not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it with its children."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, 9)
            self._process.wait()


class S3(Program):
    """An S3 server. `folder` shows what it holds, as a folder's store would lie there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "s3"
        self.folder.mkdir()
        self.port = free_port()
        program = Path(__file__).with_name("lasting_s3.py")
        words = [sys.executable, str(program), str(self.port), str(self.folder), BUCKET]
        super().__init__(words, self.port, folder / "s3.log")

    @staticmethod
    def environment(endpoint: str) -> dict[str, str]:
        """Return what a process needs to use the server at an address."""
        return {
            "AWS_ENDPOINT_URL": f"http://{endpoint}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


class MlflowServer(Program):
    """An MLflow server behind a proxy that can fail for it."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words += [
            "--backend-store-uri",
            f"sqlite:///{folder}/server.db",
            "--artifacts-destination",
            str(folder / "art"),
        ]
        # Its queue of jobs is three more processes.
        super().__init__(words, port, folder / "mlflow.log", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        self.proxy = Proxy(port)


class Services:
    """The servers of a session, each started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._s3: S3 | None = None
        self._mlflow: MlflowServer | None = None
        self._postgres: PostgresServer | None = None
        self._held = ExitStack()

    @property
    def s3(self) -> S3:
        """The S3 server."""
        if self._s3 is None:
            self._s3 = S3(self._folder)
            self._s3.start()
        return self._s3

    @property
    def mlflow(self) -> MlflowServer:
        """The MLflow server."""
        if self._mlflow is None:
            self._mlflow = MlflowServer(self._folder)
            self._mlflow.start()
        return self._mlflow

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL server."""
        if self._postgres is None:
            self._postgres = self._held.enter_context(postgres_server())
        return self._postgres

    def close(self) -> None:
        """End all of them."""
        self._held.close()
        for program in (self._s3, self._mlflow):
            if program is not None:
                program.kill()
        if self._mlflow is not None:
            self._mlflow.proxy.close()


@contextmanager
def services(folder: Path) -> Iterator[Services]:
    """Have servers for a while."""
    held = Services(folder)
    try:
        yield held
    finally:
        held.close()


def answers(port: int) -> bool:
    """Tell whether something takes connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
