"""The report of a run that is swept, served on this machine alone, and written anew in memory when trials end."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from analysis.report import report_contents
from sweeps.watching.look import Look
from ubt.common.errors import Problem, UserError

HOST = "127.0.0.1"
PORTS_TRIED = 50
SHARE = 0.1
"""At most this part of the time goes into writing the report anew."""
TYPES = {"html": "text/html", "csv": "text/csv", "json": "application/json", "tex": "text/x-tex"}

logger = logging.getLogger(__name__)


class Pages:
    """The newest report, as files in memory, and what the run is at."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._contents: Mapping[str, bytes] = {"index.html": _WAITING}
        self._version = -1
        self._next = 0.0
        self._look: Look | None = None

    def take(self, look: Look) -> None:
        """Take note of what the run is at; write the report anew if a trial has ended, unless that was just done."""
        self._look = look
        if look.findings is None or look.version == self._version or self._clock() < self._next:
            return
        began = self._clock()
        try:
            written = report_contents(look.findings, live=look.version)
        except UserError as error:  # a record that says something impossible; the next one may not
            logger.warning("the report could not be written: %s", error)
            return
        self._contents = {name: text.encode() for name, text in written.items()}
        self._version = look.version
        self._next = self._clock() + (self._clock() - began) / SHARE

    @property
    def waits(self) -> bool:
        """Return whether the report is behind what the run is at."""
        return self._look is not None and self._look.findings is not None and self._look.version != self._version

    def file(self, name: str) -> bytes | None:
        """Return a file of the report; None if there is no such."""
        return self.live() if name == "live.json" else self._contents.get(name)

    def live(self) -> bytes:
        """Return what the run is at, and which version of the report is there, as JSON."""
        look = self._look
        if look is None:
            return json.dumps({"page": self._version}).encode()
        found = {
            "page": self._version,
            "done": look.states,
            "ended": look.ended,
            "total": look.total,
            "counted": look.counted,
            "work": look.work,
            "running": [[one.trial, one.at, one.node, round(one.seconds)] for one in look.running],
            "failures": look.failures,
            "per_hour": look.per_hour,
            "saved_seconds": look.saved_seconds,
            "seconds_left": look.seconds_left,
            "at_work": look.at_work,
        }
        return json.dumps(found).encode()


_WAITING = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
    b"<title>waiting</title><p>No trial has begun yet; this page looks again every two seconds.</p></html>"
)


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "ubt", ""

    def __init__(self, pages: Pages, *rest: object) -> None:
        self._pages = pages
        super().__init__(*rest)  # type: ignore[arg-type]  # what the server gives

    def do_GET(self) -> None:
        """Answer with a file of the report, if the request names this machine, so that no other site can ask."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in {HOST, "localhost"}:
            self.send_error(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost alone")
            return
        name = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        content = self._pages.file(name)
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND, "the report has no such file")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{TYPES.get(name.rpartition('.')[2], 'text/plain')}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page asks every two seconds."""


def serve(pages: Pages, port: int) -> ThreadingHTTPServer:
    """Serve pages on this machine from a thread; on the next free port if that one is taken.

    Raises:
        UserError: if no port is free.
    """
    for candidate in range(port, port + PORTS_TRIED) if port else (0,):
        try:
            server = ThreadingHTTPServer((HOST, candidate), partial(_Handler, pages))
        except (OSError, OverflowError):
            continue
        threading.Thread(target=server.serve_forever, name="report", daemon=True).start()
        return server
    raise UserError(Problem("--port", f"no port from here to {port + PORTS_TRIED - 1} can be used", given=port))
