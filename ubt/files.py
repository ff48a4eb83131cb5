"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write `content` beside `path`, then move it there in one step; folders are made as needed.

    A reader never sees half a file, and a full disk or a killed process leaves the old one.

    Raises:
        OSError: if the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        unfinished.write_bytes(payload)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
