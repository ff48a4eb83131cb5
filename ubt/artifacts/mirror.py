"""A run folder behind an address, kept up to date while a sweep runs: a thread sends what changes here."""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

from ubt.artifacts.remote_folder import RemoteFolder
from ubt.common.ending import current
from ubt.common.exits import Cause, Exit

LAST_SECONDS = 0.5
"""Of the time of an end, what is left for what comes after."""

_LOOK_SECONDS = 2.0
_OURS_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 60.0
_CLOSE_SECONDS = 60.0
_BATCH = 64

logger = logging.getLogger(__name__)

_State = tuple[int, int]


class Mirror:
    """Sends what changes in a folder to an address, within seconds, until it is closed.

    Each file arrives whole. What cannot be sent is tried again, with growing pauses; the sweep does not wait for it.
    """

    def __init__(
        self,
        folder: Path,
        remote: RemoteFolder,
        ours: Callable[[], bool] = lambda: True,
        stays: tuple[str, ...] = (),
        look_seconds: float = _LOOK_SECONDS,
        as_sent: bool = False,
    ) -> None:
        """Prepare.

        Args:
            folder: what is sent.
            remote: where to.
            ours: whether no other sweep has taken over the address meanwhile.
            stays: beginnings of the names of what is not sent; whose name begins with a dot is not, either.
            look_seconds: how often the folder is looked at.
            as_sent: what is in the folder now is there already.
        """
        self._folder, self._remote, self._ours, self._look_seconds = folder, remote, ours, look_seconds
        self._stays = (*stays, ".")
        self._sent: dict[str, _State] = self._states() if as_sent else {}
        self._closing = Event()
        self._looked_at, self._failures, self._lost, self._over = -_OURS_SECONDS, 0, False, False
        self._fault = ""
        self._thread = Thread(target=self._work, name="mirror", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close(current().left(_CLOSE_SECONDS, LAST_SECONDS))

    def close(self, at_most_seconds: float) -> None:
        """Send the rest as long as there is time; say what is left, and where it lies."""
        self._closing.set()
        self._thread.join(at_most_seconds)
        self._over = True  # the run is somebody else's from here on
        if self._lost or not (due := self._due()):
            return
        why = f": {self._fault}" if self._fault else ", as there was too little time"
        text = "%d files are not at %s%s. They lie in %s; `--resume` on this machine sends them"
        logger.error(text, len(due), self._remote.shown, why, self._folder)

    def _work(self) -> None:
        pause = self._look_seconds
        while not (self._lost or self._over):
            last = self._closing.wait(pause)
            pause = self._step()
            if last and (not self._due() or self._lost):
                return
            if last:
                time.sleep(min(pause, 1.0))

    def _step(self) -> float:
        """Send what has changed; return the seconds until the next look."""
        try:
            self._send()
        except OSError as error:
            self._fault = " ".join(str(error).split())
            if not self._failures:
                text = "the run folder at %s is behind: %s. What is new waits in %s, and is sent as soon as that works"
                logger.warning(text, self._remote.shown, self._fault, self._folder)
            self._failures += 1
            return min(_LONGEST_PAUSE_SECONDS, self._look_seconds * 2.0**self._failures)
        if self._failures:
            logger.warning("the run folder at %s is up to date again", self._remote.shown)
        self._failures, self._fault = 0, ""
        return self._look_seconds

    def _send(self) -> None:
        due = self._due()
        if not self._is_ours():
            return
        # The study first: without it a folder is no run.
        names = sorted(due, key=lambda name: ("/" in name, name))
        for at in range(0, len(names), _BATCH):
            contents = {}
            for name in names[at : at + _BATCH]:
                with suppress(FileNotFoundError):
                    contents[name] = (self._folder / name).read_bytes()
            if self._over:
                return
            self._remote.write(contents)
            self._sent |= {name: due[name] for name in contents}

    def _is_ours(self) -> bool:
        if time.monotonic() - self._looked_at <= _OURS_SECONDS:
            return True
        if self._ours():
            self._looked_at = time.monotonic()
            return True
        self._lost = True
        text = "another sweep has taken over %s, as it had no sign of life of this one: this one ends"
        logger.error(text, self._remote.shown)
        current().ask(Cause("another sweep has taken over the run folder", Exit.FAULT))
        return False

    def _due(self) -> dict[str, _State]:
        return {name: state for name, state in self._states().items() if self._sent.get(name) != state}

    def _states(self) -> dict[str, _State]:
        began, found = time.monotonic(), {}
        for top in self._folder.iterdir():
            if top.name.startswith(self._stays):
                continue
            for path in (top, *top.rglob("*")):
                with suppress(FileNotFoundError):  # set aside, or replaced, just now
                    state = path.stat()
                    if stat.S_ISREG(state.st_mode) and not path.name.startswith("."):
                        found[path.relative_to(self._folder).as_posix()] = (state.st_mtime_ns, state.st_size)
        self._look_seconds = max(self._look_seconds, 20 * (time.monotonic() - began))
        return found
