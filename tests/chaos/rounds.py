"""A round: faults drawn from a seed happen to a sweep at moments of its progress; then it is resumed until it is done.

The moments are counts of artifacts, so that a seed means the same on a slow machine and on a quick one.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import BALLAST, FAULTS, Doing, Missed
from hosts import why_not
from invariants import Undisturbed, broken, broken_by
from scene import Scene, Sweep
from services import Services

SWEEP_SECONDS = 900.0
"""After so long a sweep hangs. A quiet machine needs 30 s, one that does much else minutes."""
MOST_STARTS = 14
STAGES = 30
"""About as many artifacts does a round's sweep make."""


STOPPING = threading.Event()
"""Set when no more is to be done: what is being played ends."""


@dataclass(frozen=True)
class Moment:
    """One fault and when it happens: so long after so many artifacts are there, and a sweep runs."""

    fault: str
    artifacts: int
    delay: float


@dataclass(frozen=True)
class Plan:
    """What a seed stands for."""

    seed: int
    where: dict[str, str]
    """Address, store, tracking and search."""
    moments: tuple[Moment, ...]

    @property
    def words(self) -> str:
        """Return it for people."""
        happening = ", ".join(f"{moment.fault} at {moment.artifacts}" for moment in self.moments)
        return f"{' '.join(self.where.values())}: {happening}"


def plan(seed: int, kinds: Sequence[str] = (), where: dict[str, str] | None = None) -> Plan:
    """Return the round that a seed stands for, of some kinds of faults and in some place only, if that is asked."""
    dice = random.Random(seed)
    addresses = ("local",) * 4 + ("inline",) + (() if why_not() else ("2 hosts", "3 hosts"))
    place = {
        "address": dice.choice(addresses),
        "store": dice.choice(("folder", "folder", "s3")),
        "tracking": dice.choice(("sqlite", "server", "server", "postgres")),
        "search": dice.choice(("grid", "optuna")),
        **(where or {}),
    }
    if place["address"].endswith(" hosts") and place["tracking"] == "postgres":
        place["tracking"] = "server"  # PostgreSQL listens for this machine only
    there = set(place.values()) | ({"ray"} if place["address"] != "inline" else set())
    there |= {"hosts"} if place["address"].endswith(" hosts") else set()
    there |= {"mounts"} if os.geteuid() == 0 else set()
    names = [name for name, fault in FAULTS.items() if fault.needs <= there and name in (kinds or FAULTS)]
    drawn = dice.sample(names, min(len(names), dice.randint(4, 8)))
    at = sorted(dice.choice((0, *range(STAGES))) for _ in drawn)
    moments = [Moment(name, n, dice.uniform(0.0, 1.0 if n else 8.0)) for name, n in zip(drawn, at, strict=True)]
    return Plan(seed, place, tuple(moments))


@dataclass
class Outcome:
    """What a round came to."""

    plan: Plan
    done: list[str] = field(default_factory=list)
    """Names of the faults that happened."""
    missed: list[str] = field(default_factory=list)
    """Those that found nothing to happen to."""
    problems: list[str] = field(default_factory=list)
    """What should not be so."""
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    """Of each start of a sweep: name, status, seconds, the longest time without a line."""
    seconds: float = 0.0


@dataclass
class _Active:
    name: str
    doing: Doing
    until: float
    statuses: set[int]


class Round:
    """One round as it is played."""

    def __init__(self, scene: Scene, drawn: Plan) -> None:
        self.scene, self.outcome = scene, Outcome(drawn)
        self._todo = list(drawn.moments)
        self._active: list[_Active] = []
        self._ready_since: float | None = None

    def play(self) -> None:
        """Start and resume sweeps until every one is done, with no fault left to happen."""
        self.scene.start(self.scene.name)
        while True:
            if STOPPING.wait(0.1):
                raise InterruptedError("the round was stopped")
            self._end_faults()
            self._begin_fault()
            self._look_at_sweeps()
            if self.scene.alive:
                continue
            left = self._not_done()
            if not left and not (self._todo and self._todo[0].artifacts <= self.scene.progress):
                break
            if len(self.scene.sweeps) >= MOST_STARTS:
                self.outcome.problems.append(f"after {MOST_STARTS} starts the sweep is not done")
                break
            self._ready_since = None
            for name in left or [self.scene.name]:
                self.scene.start(name)
        self._end_faults()
        self._track()
        self.outcome.missed += [moment.fault for moment in self._todo]

    def _track(self) -> None:
        """Do what a sweep that MLflow did not answer says is to be done."""
        for name in {sweep.name for sweep in self.scene.sweeps}:
            *_, last = [sweep for sweep in self.scene.sweeps if sweep.name == name]
            if "`ubt track" in last.output and (told := self.scene.track(name)):
                self.outcome.problems.append(f"{name}: {told}")

    def _begin_fault(self) -> None:
        if not self._todo or self.scene.progress < self._todo[0].artifacts or not self.scene.alive:
            return
        now = time.monotonic()
        self._ready_since = self._ready_since or max(now, self.scene.alive[0].started)
        if now < self._ready_since + self._todo[0].delay:
            return
        self._ready_since = None
        name = self._todo.pop(0).fault
        hit_now: set[int] = set()
        self.scene.lasting.append(hit_now)
        met = list(self.scene.alive)
        doing = FAULTS[name].do(self.scene)
        try:
            seconds = next(doing, None)
        except Missed:
            self.scene.lasting.remove(hit_now)
            self.outcome.missed.append(name)
            return
        self.outcome.done.append(name)
        for sweep in met:
            sweep.hit_by.append(name)
        if seconds is None:
            self._forget(hit_now)
        else:
            self._active.append(_Active(name, doing, now + seconds, hit_now))

    def _end_faults(self) -> None:
        for active in list(self._active):
            if time.monotonic() >= active.until or not self.scene.alive:
                next(active.doing, None)
                self._active.remove(active)
                self._forget(active.statuses)

    def _forget(self, statuses: set[int]) -> None:
        self.scene.lasting = [other for other in self.scene.lasting if other is not statuses]

    def _look_at_sweeps(self) -> None:
        for sweep in self.scene.sweeps:
            if sweep.ended:
                continue
            if sweep.alive and time.monotonic() - sweep.started - sweep.paused > SWEEP_SECONDS:
                self.outcome.problems.append(f"{sweep.name} hangs after {sweep.hit_by}: …{sweep.output[-400:]}")
                sweep.expected.add(-9)
                sweep.process.kill()
                sweep.process.wait()
            if not sweep.alive:
                sweep.ended = time.monotonic()
                time.sleep(0.1)  # until what it printed last is read
                self.outcome.problems += broken_by(sweep, (self.scene.run_folder(sweep.name) / "study.json").exists())
                self.outcome.sweeps.append(_told(sweep))

    def _not_done(self) -> list[str]:
        """Return the names of the sweeps whose last start did not end well."""
        last = {sweep.name: sweep.process.returncode for sweep in self.scene.sweeps}
        return [name for name, status in last.items() if status]


def play(drawn: Plan, folder: Path, services: Services, undisturbed: Undisturbed, keep: Path | None = None) -> Outcome:
    """Play one round in a folder, and hold what came out against the undisturbed run."""
    began = time.monotonic()
    scene = Scene(f"round-{drawn.seed}", folder, services, random.Random(drawn.seed), drawn.where)
    played = Round(scene, drawn)
    outcome = played.outcome
    try:
        with scene.set_up():
            try:
                played.play()
                outcome.problems += broken(scene, undisturbed)
            except Exception as error:  # noqa: BLE001 — the other rounds are to be played
                outcome.problems.append(f"the round itself failed: {type(error).__name__}: {error}")
            if outcome.problems and keep is not None:
                _keep(scene, outcome, keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def _keep(scene: Scene, outcome: Outcome, keep: Path) -> None:
    """Save what a failed round printed and wrote, without its artifacts."""
    keep.mkdir(parents=True, exist_ok=True)
    with suppress(OSError, shutil.Error):
        shutil.copytree(scene.runs, keep / "runs", dirs_exist_ok=True, ignore=shutil.ignore_patterns("ray", BALLAST))
    for log in scene.folder.glob("*.log"):
        shutil.copy(log, keep)
    (keep / "problems.txt").write_text("\n".join([outcome.plan.words, *outcome.problems]) + "\n")


def _told(sweep: Sweep) -> dict[str, Any]:
    seconds = sweep.ended - sweep.started
    told = {"to_end": round(sweep.ended - sweep.told, 1)} if sweep.told else {}
    return {
        "name": sweep.name,
        "status": sweep.process.returncode,
        "seconds": round(seconds, 1),
        "quiet": round(sweep.quiet_seconds, 1),
        "hit_by": sweep.hit_by,
        **told,
    }
