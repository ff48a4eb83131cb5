"""How long a sweep takes from a signal to its end, at random moments: `python benchmarks/ends.py [ROUNDS] [SEED]`.

Each round starts `ubt sweep smoke` in a folder of its own, and sends SIGINT, SIGTERM or SIGHUP, once or twice, at a
moment between its start and its end. Status, last line, records, leftovers and processes are checked.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

from ubt.trials.record import State, read_records

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_SECONDS = 25.0
"""A bit more than the sweep takes undisturbed on two cores."""


def one_end(folder: Path, number: signal.Signals, twice: bool, draw: random.Random) -> tuple[float, list[str]]:
    """Return the seconds from the (first) signal to the end, and what was not as it should be."""
    sets = [f"store={folder}/store", "resources.concurrent_trials=2"]
    words = ["sweep", "smoke", "--resume=auto", "--out", f"{folder}/runs", *(w for s in sets for w in ("--set", s))]
    with (folder / "said").open("w") as said:
        program = [sys.executable, "-c", "from sweeps.cli.start import main; main()", *words]
        sweep = subprocess.Popen(program, stdout=said, stderr=said, start_new_session=True)
    try:
        sweep.wait(draw.uniform(0.5, LONGEST_SECONDS))
        return 0.0, ["it had ended before"]
    except subprocess.TimeoutExpired:
        pass
    begun = psutil.Process(sweep.pid).children(recursive=True)
    sent = time.monotonic()
    sweep.send_signal(number)
    if twice:
        time.sleep(draw.uniform(0.4, 2.0))
        sweep.send_signal(number)
    status = sweep.wait(120)
    took = time.monotonic() - sent
    _, alive = psutil.wait_procs(begun, 10)
    text = (folder / "said").read_text()
    states = {record.state for run in folder.glob("runs/*/records") for record in read_records(run)}
    wrong = {
        f"status {status}": status != 128 + number,
        "a traceback": "Traceback" in text or "*** SIG" in text,
        "no command that goes on": "--resume" not in text,
        "a record that runs": State.RUNNING in states,
        f"processes that outlive it: {alive}": bool(alive),
    }
    found = [what for what, is_so in wrong.items() if is_so]
    return took, found + ([f"it said:\n{text}"] if found else [])


def main(rounds: int = 30, seed: int = 0) -> None:
    """Print a line a round, then the longest of each kind."""
    draw, longest = random.Random(seed), defaultdict[str, float](float)
    os.environ.setdefault("UBT_CACHE", tempfile.mkdtemp())
    for at in range(rounds):
        number, twice = SIGNALS[at % 3], at // 3 % 2 == 1
        kind = f"{number.name} {'twice' if twice else 'once'}"
        with tempfile.TemporaryDirectory(prefix="ubt-ends-", dir="/tmp") as folder:
            took, wrong = one_end(Path(folder), number, twice, draw)
        longest[kind] = max(longest[kind], took)
        print(f"{at} {kind}: {took:.2f} s {', '.join(wrong) or 'well'}", flush=True)
    for kind, seconds in sorted(longest.items()):
        print(f"{kind}: {seconds:.2f} s at most")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
