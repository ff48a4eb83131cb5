"""The process beside a report in which importances are worked out: what that imports takes as long as the report."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import cast

from analysis.effects.evaluators import Weights

_log = logging.getLogger(__name__)

_SECONDS = 600.0
"""After so long a process that works importances out does not count on."""


class EvaluatorProcess:
    """A process that imports the evaluators at once, and then waits for what to weigh."""

    def __init__(self) -> None:
        # -P: no module of where it is called from
        command = [sys.executable, "-P", "-m", "analysis.effects.evaluators"]
        self._process: subprocess.Popen[str] | None = None
        self._asking: Thread | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )

    def weigh(self, given: str, here: Callable[[], Weights]) -> Callable[[], Weights]:
        """Have it weigh what `evaluators.main` reads; return what waits for that, and else works it out `here`."""
        process, said = self._process, list[str]()
        if process is None:
            return here

        def ask() -> None:
            with suppress(OSError, ValueError, subprocess.TimeoutExpired):
                said.append(process.communicate(given, timeout=_SECONDS)[0])

        self._asking = asking = Thread(target=ask, daemon=True)  # a pipe takes what is long only once it is read
        asking.start()

        def wait() -> Weights:
            asking.join()
            try:
                return cast("Weights", json.loads(said[0]))
            except (IndexError, ValueError) as error:
                _log.debug("importances are worked out here: %s", error)
                process.kill()  # it has ended, or takes too long
                return here()

        return wait

    @property
    def ended(self) -> bool:
        """Return whether there is no such process, or no more."""
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        """End it, if it has not ended."""
        if process := self._process:
            process.kill()
            process.wait()
            if self._asking:
                self._asking.join()  # it reads to the end of the pipe, which is there now
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
