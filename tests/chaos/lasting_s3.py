"""An S3 server (moto) that outlives its process: a program that keeps every object in a folder too, and reads it again.

python lasting_s3.py PORT FOLDER BUCKET
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

REGION = "us-east-1"


class LastingS3:
    """A WSGI application: moto, and what it holds written down before a request that changes something is answered."""

    def __init__(self, folder: Path, bucket: str) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._backend = s3_backends["123456789012"]["aws"]
        self._backend.create_bucket(bucket, REGION)
        self._bucket = self._backend.get_bucket(bucket)
        self._kept: dict[str, Any] = {}
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.startswith(".unfinished-"):
                name = str(path.relative_to(folder))
                self._kept[name] = self._backend.put_object(bucket, name, path.read_bytes()).etag

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        answer = list(self._moto(environ, start_response))
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            with self._lock:
                self._keep()
        return answer

    def _keep(self) -> None:
        now = {name: key.etag for name, key in list(self._bucket.keys.items())}
        for name, etag in now.items():
            if self._kept.get(name) != etag:
                path, content = self._folder / name, self._bucket.keys[name].value
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(f".unfinished-{uuid4().hex}")
                unfinished.write_bytes(content)
                unfinished.replace(path)
        for name in self._kept.keys() - now.keys():
            (self._folder / name).unlink(missing_ok=True)
        self._kept = now


if __name__ == "__main__":
    port, folder, bucket = sys.argv[1:]
    application = LastingS3(Path(folder), bucket)
    make_server("127.0.0.1", int(port), application, threaded=True, request_handler=MotoRequestHandler).serve_forever()
