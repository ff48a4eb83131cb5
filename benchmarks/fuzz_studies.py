"""Spoil the built-in studies at random and plan each: exit 0 or 2, no traceback, at most five seconds of one CPU.

    python benchmarks/fuzz_studies.py [--here 5000] [--command 200] [--seed 0]

`--here` are planned in this process, through what the `ubt` command calls; `--command` through the command itself. What
goes wrong is printed with its traceback, and the file that did it is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "sweeps"))

from study_mutations import trees, write_spoilt

from sweeps.cli.app import main

MOST_CPU_SECONDS = 5.0
MOST_SECONDS = 300.0
"""Of the wall clock, for what waits without computing; other programs may use the machine too."""


class TooLongError(BaseException):
    """Planning took more of a CPU than it may."""


def planned(words: list[str]) -> tuple[str, str]:
    """Plan in this process; return the outcome (an exit status, or what went wrong) and what was printed."""
    printed = io.StringIO()

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError("".join(traceback.format_stack(frame)[-4:]))

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_CPU_SECONDS)
    try:
        with (
            mock.patch.object(sys, "argv", ["ubt", "plan", *words]),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            main()
    except SystemExit as ended:
        status = int(ended.code or 0)
        return (f"exit {status}" if status in (0, 2) else f"WRONG exit {status}"), printed.getvalue()
    except TooLongError as error:
        return "WRONG too long", str(error)
    except BaseException:  # noqa: BLE001 — what is looked for
        return "WRONG traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "exit 0", printed.getvalue()


def commanded(words: list[str]) -> tuple[str, str]:
    """Plan by the command; return the outcome and what was printed."""
    raw = [word.encode("utf-8", "surrogatepass") for word in words]
    before = os.times()
    try:
        ended = subprocess.run(
            [sys.executable, "-c", "from sweeps.cli.app import main; main()", "plan", *raw],
            capture_output=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "WRONG waits", ""
    text = (ended.stdout + ended.stderr).decode(errors="replace")
    after = os.times()
    seconds = after.children_user - before.children_user + after.children_system - before.children_system
    if seconds > MOST_CPU_SECONDS + 2:
        return "WRONG too long", text
    if ended.returncode not in (0, 2) or "Traceback" in text:
        return f"WRONG exit {ended.returncode}", text
    return f"exit {ended.returncode}", text


def fuzz() -> None:
    """Run both rounds and print how often each outcome was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", type=int, default=5000)
    parser.add_argument("--command", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ["UBT_STORE"] = str(folder / "store")
    os.chdir(folder)
    known, wrong = trees(), 0
    for name, plan, count in (("in one process", planned, asked.here), ("by the command", commanded, asked.command)):
        started, found, slowest = time.monotonic(), Counter[str](), 0.0
        for number in range(asked.first, asked.first + count):
            words = write_spoilt(folder, number, known, asked.seed)
            begun = time.process_time()
            outcome, text = plan(words)
            slowest = max(slowest, time.process_time() - begun)
            found[outcome] += 1
            if outcome.startswith("WRONG"):
                wrong += 1
                print(f"{outcome}: {words}\n{text[-1500:]}\n", flush=True)
            else:
                Path(words[0]).unlink()
        seconds = time.monotonic() - started
        print(f"{name}: {dict(found)} in {seconds:.0f} s; slowest {slowest:.2f} s of CPU", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    fuzz()
