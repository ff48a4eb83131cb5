"""`ubt ui`: MLflow's own server over a run's database, on this machine only, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeps.tracking.config import is_remote, local_artifacts, sqlite_path
from ubt.common.errors import Problem, UserError
from ubt.common.secrets import without_credentials

_PORTS_TRIED = 50
_START_SECONDS, _END_SECONDS = 120.0, 10.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


Answers = Callable[[str, str], None]


def serve(
    uri: str,
    host: str = "127.0.0.1",
    port: int = 5000,
    show: Callable[[str], None] = print,
    answers: Answers = lambda address, version: None,
) -> None:
    """Serve the MLflow pages of `uri` until Ctrl-C; tell the address through `show`.

    `answers` is called with the address and the version of a server that answers.

    A busy port is answered by the next free one, also if it becomes busy while MLflow starts, which takes seconds. If
    `uri` is a server already, only its address is shown.

    Raises:
        UserError: if the database does not exist, no port is free, or the server ends by itself.
    """
    if is_remote(uri):
        show(f"MLflow runs at {without_credentials(uri)}")
        answers(without_credentials(uri), _version(uri))
        return
    _must_exist(uri)
    free = _free_port(host, port)
    try:
        _serve_on(uri, host, free, show, answers)
    except UserError:
        if _is_free(host, free):
            raise
        show(f"Another program has taken port {free} meanwhile.")
        _serve_on(uri, host, _free_port(host, free + 1), show, answers)


def _serve_on(uri: str, host: str, port: int, show: Callable[[str], None], answers: Answers) -> None:
    if host not in _LOOPBACK:
        show(f"Warning: MLflow asks for no password: anyone who reaches {host}:{port} can read and change all runs.")
    address = f"http://{host}:{port}"
    show(f"Starting MLflow over {without_credentials(uri)} …")
    with _server(uri, host, port) as server:
        _wait_until_it_answers(server, address)
        show(f"MLflow: {address}   (Ctrl-C ends it)")
        answers(address, _version(address))
        _fail_if(server.wait() != 0, address, "the server ended by itself")


def _must_exist(uri: str) -> None:
    database = sqlite_path(uri)
    if database and not database.exists():
        advice = (
            "`ubt sweep` makes it, on another machine `ubt track RUN`; was the study tracked, is this its run folder?"
        )
        raise UserError(Problem(str(database), "this MLflow database does not exist", advice=advice))


def _free_port(host: str, first: int) -> int:
    for port in range(first, first + _PORTS_TRIED):
        if _is_free(host, port):
            return port
    message = f"no port from here to {first + _PORTS_TRIED - 1} can be used on {host}"
    raise UserError(Problem("--port", message, given=first))


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
        return True


@contextmanager
def _server(uri: str, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server in a session of its own: Ctrl-C reaches us only, and we end it and its workers."""
    arguments = ["server", "--host", host, "--port", str(port), "--workers", "1"]
    with _terminated_like_ctrl_c():
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments], env=_environment(uri), start_new_session=True
        )
        try:
            yield server
        except KeyboardInterrupt:
            pass  # the way in which this command ends
        finally:
            _end(server)


def _environment(uri: str) -> dict[str, str]:
    """Return the server's settings; not as arguments, where `ps` would show a password to everyone."""
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Evaluation jobs of language models: three more processes that a look at runs does not need.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if artifacts := local_artifacts(uri):
        environment["MLFLOW_ARTIFACTS_DESTINATION"] = artifacts.as_uri()
    return environment


def _wait_until_it_answers(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        _fail_if(server.poll() is not None, address, "the server did not start; its messages are above")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310 — http by construction
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    _fail_if(True, address, f"the server did not answer within {_START_SECONDS:.0f} s")


def _version(address: str) -> str:
    """Return the version of a server; "" if it does not say it, as one behind a login."""
    try:
        with urllib.request.urlopen(f"{without_credentials(address).rstrip('/')}/version", timeout=5) as answer:  # noqa: S310 — http by construction
            return str(answer.read(64).decode("ascii", "replace")).strip()
    except (urllib.error.URLError, OSError, ValueError):
        return ""


def open_in_browser(address: str) -> bool:
    """Open a page where there is a desktop; a browser in the terminal would take it from Ctrl-C."""
    desktop = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not (desktop and sys.stdout.isatty()):
        return False
    try:
        return webbrowser.open(address)
    except (webbrowser.Error, OSError):
        return False


def _fail_if(failed: bool, address: str, message: str) -> None:
    if failed:
        raise UserError(Problem(f"MLflow at {address}", message))


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which share the session that was made for them."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, signal_number)
            server.wait(_END_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, or the server would outlive us."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread set handlers
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
