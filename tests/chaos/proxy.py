"""A proxy in front of a server that can be told to fail: to be slow, to answer 500, or to refuse every request."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW_SECONDS = 8.0
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "host"}


class Proxy:
    """Listens on a port of an address of this machine and passes on what it is asked, as `mode` says."""

    def __init__(self, port_behind: int, address: str = "127.0.0.1") -> None:
        self.mode = "pass"
        """`pass`, `slow`, or the status that every request is answered with."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.mode.isdigit():
                    self.answer(int(proxy.mode), [("Content-Type", "text/plain")], b"as the test wants it")
                    return
                if proxy.mode == "slow":
                    time.sleep(SLOW_SECONDS)
                try:
                    self.answer(*self.passed_on(body))
                except (OSError, http.client.HTTPException):
                    self.close_connection = True  # as if nothing listened

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                behind = http.client.HTTPConnection("127.0.0.1", port_behind, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                try:
                    behind.request(self.command, self.path, body, headers)
                    answer = behind.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                finally:
                    behind.close()

            def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Say nothing: the client was killed."""

        self._server = Server((address, 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self._server.shutdown()
            self._server.server_close()
