"""Play rounds of random faults: `make chaos`. Prints what held and what did not, and writes it as JSON.

    CHAOS_ROUNDS=20 CHAOS_SEED=1 python tests/chaos/chaos.py [--out FOLDER] [--kinds WORDS] [--where ADDRESS,STORE,…]

With CHAOS_ROUNDS=1 and the seed of a round that failed, that round is played again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from faults import FAULTS
from invariants import Undisturbed, checksums_of, identity, rates_of
from rounds import STOPPING, Outcome, Plan, plan, play
from scene import SEARCHES, Scene
from services import Services, services

from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import read_records

CANDIDATES = 12
"""Seeds that each round is taken from: the one whose faults have happened least."""


def undisturbed(folder: Path, given: Services, searches: tuple[str, ...] = tuple(SEARCHES)) -> Undisturbed:
    """Return what comes out where nothing goes wrong, in one process without Ray."""
    whole = Undisturbed({}, {})
    for search in searches:
        where = {"address": "inline", "store": "folder", "tracking": "sqlite", "search": search}
        scene = Scene(f"undisturbed-{search}", folder / search, given, random.Random(0), where)
        with scene.set_up():
            sweep = scene.start(scene.name)
            if sweep.process.wait():
                time.sleep(0.5)
                raise SystemExit(f"the undisturbed run failed: {sweep.output}")
            records = read_records(scene.run_folder(scene.name) / "records")
            whole.rates[search] = {identity(record): rates_of(record) for record in records}
            manifests = ArtifactStore(scene.seen_store).manifests()
            whole.checksums[search] = {f"{m.stage}/{m.key}": checksums_of(m) for m in manifests}
    return whole


def kept(file: Path | None, make: Callable[[], Undisturbed]) -> Undisturbed:
    """Return what a file holds of the undisturbed run; it is made and written there if there is none."""
    if file is not None and file.exists():
        return Undisturbed(**json.loads(file.read_text()))
    made = make()
    if file is not None:
        file.write_text(json.dumps(asdict(made)))
    return made


def next_plan(dice: random.Random, happened: Counter[str], kinds: list[str], where: dict[str, str]) -> Plan:
    """Return the plan, of some candidates, whose faults have happened least."""
    candidates = [plan(dice.randrange(10**6), kinds, where) for _ in range(CANDIDATES)]
    return min(candidates, key=lambda drawn: sum(happened[m.fault] for m in drawn.moments) / len(drawn.moments))


def table(outcomes: list[Outcome]) -> str:
    """Return how often each kind of fault happened, and in how many rounds with one of it something was wrong."""
    happened = Counter(name for outcome in outcomes for name in outcome.done)
    wrong = Counter(name for outcome in outcomes if outcome.problems for name in set(outcome.done))
    lines = [f"{'fault':<48}{'happened':>9}{'in rounds that failed':>23}"]
    lines += [f"{name:<48}{happened[name]:>9}{wrong[name]:>23}" for name in FAULTS if happened[name]]
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    return "\n".join([*lines, f"{sum(happened.values())} faults in {len(outcomes)} rounds, of which {failed} failed"])


class Session:
    """The rounds of one call, several at a time if that is asked, each of these with servers of its own."""

    def __init__(self, out: Path, folder: Path, expected: Undisturbed, draw: Callable[[Counter[str]], Plan]) -> None:
        self._out, self._folder, self._expected, self._draw = out, folder, expected, draw
        self._outcomes: list[Outcome] = []
        self._taken: list[Plan] = []
        self._lock = threading.Lock()

    @property
    def outcomes(self) -> list[Outcome]:
        """Return what the rounds came to."""
        return list(self._outcomes)

    def play(self, rounds: int, deadline: float, place: int) -> None:
        """Play rounds, one after the other, until so many were begun in all places, or the time is over."""
        folder = self._folder / f"place-{place}"
        folder.mkdir()
        with services(folder) as servers:
            while (drawn := self._next(rounds, deadline)) is not None:
                keep = self._out / f"round-{drawn.seed}"
                self._note(play(drawn, folder / str(drawn.seed), servers, self._expected, keep))

    def _next(self, rounds: int, deadline: float) -> Plan | None:
        with self._lock:
            if len(self._taken) >= rounds or time.monotonic() > deadline or STOPPING.is_set():
                return None
            drawn = self._draw(Counter(moment.fault for taken in self._taken for moment in taken.moments))
            self._taken.append(drawn)
            print(f"round {len(self._taken)}/{rounds}, seed {drawn.seed}: {drawn.words}", flush=True)
            return drawn

    def _note(self, outcome: Outcome) -> None:
        missed = f", missed: {', '.join(outcome.missed)}" if outcome.missed else ""
        lines = [f"  seed {outcome.plan.seed}: {len(outcome.done)} faults, {outcome.seconds:.0f} s{missed}"]
        lines += ["  WRONG " + problem.replace("\n", "\n    ") for problem in outcome.problems]
        with self._lock:
            self._outcomes.append(outcome)
            print("\n".join(lines), flush=True)
            text = json.dumps([asdict(each) for each in self._outcomes], indent=1)
            (self._out / "chaos.json").write_text(text)


def main() -> int:
    """Play the rounds that the environment asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "ubt-chaos")
    parser.add_argument("--kinds", default="", help="only faults with one of these words in their name: `worker,full`")
    parser.add_argument("--where", default="", help="`address=local,store=s3`: this place only")
    parser.add_argument("--undisturbed", type=Path, help="file that keeps what comes out where nothing goes wrong")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="rounds at a time")
    parser.add_argument("--minutes", type=float, default=10_000, help="begin no round after so many")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    rounds, seed = int(os.environ.get("CHAOS_ROUNDS") or 20), os.environ.get("CHAOS_SEED", "")
    words = [word for word in given.kinds.split(",") if word]
    kinds = [name for name in FAULTS if any(word in name for word in words)]
    where = dict(part.split("=") for part in given.where.split(",") if part)
    dice = random.Random(int(seed)) if seed else random.Random()
    given.out.mkdir(parents=True, exist_ok=True)

    def draw(happened: Counter[str]) -> Plan:
        return plan(int(seed), kinds, where) if rounds == 1 and seed else next_plan(dice, happened, kinds, where)

    with tempfile.TemporaryDirectory(prefix="ubt-chaos-") as scratch:
        folder = Path(scratch)
        os.environ.update(UBT_CACHE=str(folder / "cache"), MPLBACKEND="Agg")
        with services(folder) as servers:
            expected = kept(given.undisturbed, lambda: undisturbed(folder / "undisturbed", servers))
        session = Session(given.out, folder, expected, draw)
        with ThreadPoolExecutor(given.at_once) as places:
            for playing in [places.submit(session.play, rounds, deadline, place) for place in range(given.at_once)]:
                playing.result()
    print(table(session.outcomes))
    print(f"written to {given.out / 'chaos.json'}")
    return int(any(outcome.problems for outcome in session.outcomes))


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("chaos needs /proc: Linux")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # what the rounds made is cleared away
        signal.signal(number, lambda *_: STOPPING.set())
    sys.exit(main())
