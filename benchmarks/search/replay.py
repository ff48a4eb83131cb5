"""Searchers replayed on known outcomes: how far from the best front each is, for the device-seconds it has spent.

    python benchmarks/search/replay.py demo [--repetitions 20] [--searchers ours tpe …] [--out FILE.jsonl]

Nothing is computed: a configuration's epochs are looked up. Each searcher is its own code: ours the session, sampler
and rule of a sweep; Optuna's samplers by ask and tell; Ray Tune's OptunaSearch; Syne Tune's MOASHA (`pip install
--no-deps syne-tune dill`; left out where it is not there). One trial at a time. For all of them every judged epoch
counts, the victim is there, and seconds are counted alike: without sharing each trial pays all stages of its defense,
with sharing those that no earlier trial of the search brought along. A configuration that was asked for before costs
nothing again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from outcomes import JUDGED, LAST, Outcomes, read
from pydantic import JsonValue

from analysis.points.geometry import hypervolume
from sweeps.planning.trials import TrialPlanner
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.lagged import in_step
from sweeps.study.config import StudyConfig
from ubt.common.statistics import wilson_interval
from ubt.trials.assignment import Assignment
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord
from ubt.trials.stopping import JudgedEpoch, Stopping, StopRule, judged_epochs

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS = 32
"""The budget: what so many whole trials take on average, without sharing."""
VICTIM = ("pretrain", "load", "evaluate_clean", "poison", "implant")
"""Stages that cost nothing."""
REPEATS = 200
"""Questions in a row for what it knows already, after which a searcher is taken to have nothing new."""


class Replay:
    """One search: what it has spent, and how far its front was from the best one then."""

    def __init__(self, known: Outcomes, shared: bool, best: float, others: Sequence[Outcomes] = ()) -> None:
        """Begin one; `others` are the same configurations of the same attack under other seeds."""
        self.known, self.shared, self._best, self.others = known, shared, best, others
        whole = fmean(sum(seconds for *_, seconds in stages) for stages in known.stages)
        self.budget = TRIALS * whole
        self.spent = 0.0
        self._there: set[str] = set()
        self._epochs: dict[int, int] = {}
        self._repeats = 0
        self._points: list[tuple[float, float]] = []
        self.course: list[tuple[float, float]] = []
        """(seconds, regret) after each trial."""

    @property
    def points(self) -> NDArray[np.float64]:
        """Return ASR and CA of every epoch that was judged, `[n, 2]`."""
        return np.array(self._points).reshape(-1, 2)

    def price(self, at: int) -> float:
        """Return the seconds that a whole run of a configuration takes."""
        there = self._there if self.shared else ()
        return sum(seconds for name, key, seconds in self.known.stages[at] if name == JUDGED or key not in there)

    @property
    def over(self) -> bool:
        """Tell whether the budget is spent, or nothing new is asked for."""
        all_run = len(self._epochs) == len(self.known.points)
        return self.spent >= self.budget or all_run or self._repeats >= REPEATS

    def run(self, at: int, epochs: int | None = None) -> None:
        """Run a configuration for so many of its epochs."""
        every = self.known.epochs
        epochs = epochs or every
        if self._epochs.get(at, 0) >= epochs:
            self._repeats += 1
            return
        self._repeats = 0
        for name, key, seconds in self.known.stages[at]:
            if (self.shared and key in self._there) or (name == LAST and epochs < every):
                continue
            self.spent += seconds * (epochs / every if name == JUDGED else 1)
            if name != JUDGED or epochs == every:
                self._there.add(key)
        self._epochs[at] = epochs
        self._points += [(float(self.known.asr[at, e]), float(self.known.ca[at, e])) for e in range(epochs)]
        self.course.append((self.spent, self._best - hypervolume(np.array(self._points))))


Searcher = Callable[[Replay, int], None]


def random(replay: Replay, seed: int) -> None:
    """Draw configurations evenly, none twice."""
    for at in np.random.default_rng(seed).permutation(len(replay.known.points)):
        if replay.over:
            return
        replay.run(int(at))


def random_stopped(replay: Replay, seed: int) -> None:
    """Draw the same configurations, and stop trials by the default rule: what stopping does beside no sampler."""
    known, settings = replay.known, Stopping()
    peers: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    images = known.study.victim.data.val_images
    for at in np.random.default_rng(seed).permutation(len(known.points)):
        if replay.over:
            return
        points = [(float(asr), float(ca)) for asr, ca in zip(known.asr[at], known.ca[at], strict=True)]
        highest = (wilson_interval(round(ca * images), images)[1] for _, ca in points)
        judged = [
            JudgedEpoch(e, one, one[1], high) for e, (one, high) in enumerate(zip(points, highest, strict=True), 1)
        ]
        rule = StopRule(settings=settings, stage=JUDGED, peers={rung: tuple(ones) for rung, ones in peers.items()})
        found = rule.first_stop(judged, known.epochs, known.poisoned_ca)
        last = found.epoch if found else known.epochs
        for rung in settings.rungs(known.epochs):
            if rung <= last:
                peers[rung].append(points[rung - 1])
        replay.run(int(at), last)


def foresight(replay: Replay, seed: int) -> None:
    """Run what gains most for its price by the means over the other seeds: what a search would know that had seen them.

    No peer, but a bound: what is left to it is how the seed differs, which no search of this one can know either.
    """
    del seed
    rates = [np.mean([getattr(one, rate) for one in replay.others], axis=0) for rate in ("asr", "ca")]
    expected = np.stack(rates, axis=-1)  # [N, E, 2]
    left = set(range(len(replay.known.points)))
    while left and not replay.over:
        front, now = replay.points, hypervolume(replay.points)
        gains = {at: hypervolume(np.concatenate([front, expected[at]])) - now for at in left}
        alone = {at: hypervolume(expected[at]) for at in left}
        at = max(left, key=lambda one: (gains[one] / replay.price(one), alone[one], -one))
        left.remove(at)
        replay.run(at)


def _choices(known: Outcomes) -> dict[str, list[Any]]:
    return {path: sorted({point[path] for point in known.points}) for path in known.points[0]}


def with_optuna(make: Callable[[int], optuna.samplers.BaseSampler]) -> Searcher:
    """Return a search by ask and tell with one of Optuna's samplers; it learns the last epoch."""

    def search(replay: Replay, seed: int) -> None:
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=make(seed))
        space = {p: optuna.distributions.CategoricalDistribution(v) for p, v in _choices(replay.known).items()}
        while not replay.over:
            trial = study.ask(space)
            at = replay.known.at(trial.params)
            assert at is not None
            replay.run(at)
            study.tell(trial, [replay.known.asr[at, -1], replay.known.ca[at, -1]])

    return search


def ray_optuna(replay: Replay, seed: int) -> None:
    """Ask Ray Tune's OptunaSearch as Tune does."""
    from ray import tune  # noqa: PLC0415
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

    space = {path: tune.choice(values) for path, values in _choices(replay.known).items()}
    searcher = OptunaSearch(
        OptunaSearch.convert_search_space(space), metric=["asr", "ca"], mode=["min", "max"], seed=seed
    )
    for number in count():
        if replay.over:
            return
        point = searcher.suggest(str(number))
        at = replay.known.at(point)
        assert at is not None
        replay.run(at)
        result = {"asr": replay.known.asr[at, -1], "ca": replay.known.ca[at, -1]}
        searcher.on_trial_complete(str(number), result=result)


def moasha(replay: Replay, seed: int) -> None:
    """Ask Syne Tune's MOASHA with its defaults but for the longest trial, epoch by epoch."""
    from syne_tune.backend.trial_status import Trial  # noqa: PLC0415
    from syne_tune.config_space import choice  # noqa: PLC0415
    from syne_tune.optimizer.scheduler import SchedulerDecision  # noqa: PLC0415
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA  # noqa: PLC0415

    np.random.seed(seed)
    space = {path: choice(values) for path, values in _choices(replay.known).items()}
    scheduler = MOASHA(space, ["asr", "error"], max_t=replay.known.epochs, random_seed=seed)
    for number in count():
        if replay.over:
            return
        suggestion = scheduler.suggest()
        at = replay.known.at(suggestion.config)
        assert at is not None
        trial = Trial(number, suggestion.config, datetime.now())
        scheduler.on_trial_add(trial)
        for epoch in range(1, replay.known.epochs + 1):
            rates = replay.known.asr[at, epoch - 1], replay.known.ca[at, epoch - 1]
            result = {"asr": rates[0], "error": 1 - rates[1], "training_iteration": epoch}
            if epoch == replay.known.epochs:
                scheduler.on_trial_complete(trial, result)
            elif scheduler.on_trial_result(trial, result) == SchedulerDecision.STOP:
                break
        replay.run(at, epoch)


def ours(search: dict[str, Any]) -> Searcher:
    """Return a search by the session of a sweep, with these settings of `search`."""

    def run(replay: Replay, seed: int) -> None:
        known = replay.known
        design = {"design": "optuna", "n_trials": len(known.points), "space": _choices(known), "sampler_seed": seed}
        parts = known.study.model_dump(mode="json", exclude={"search"})
        study = StudyConfig.model_validate({**parts, "search": {**design, "lag": 1, **search}})
        study = study.with_search(study.search.for_workers(1))
        with tempfile.TemporaryDirectory() as folder:
            session = _session(Path(folder), study, replay.shared)
            while not replay.over and (assignment := session.next_assignment()) is not None:
                record = record_of(assignment, known)
                at = known.at({path: _setting(assignment.config, path) for path in known.points[0]})
                if at is not None:
                    replay.run(at, record.pruned.epoch if record.pruned else None)
                session.ended(assignment.trial, record)

    return run


def _session(folder: Path, study: StudyConfig, shared: bool) -> Session:
    proposer = study.search.proposer(study, folder / "optuna.journal")
    prices = getattr(proposer, "prices", None)
    if prices is not None and not shared:
        prices.shared = VICTIM
    records = folder / "records"
    planner = TrialPlanner(study, f"{folder}/store")
    return Session(in_step(proposer, study), planner, 1, StageScheduler(), records, ca_floor=study.ca_floor)


def _setting(config: JsonValue, path: str) -> JsonValue:
    for name in path.split("."):
        assert isinstance(config, dict)
        config = config[name]
    return config


def _rates(asr: float, ca: float, images: int) -> Rates:
    low, high = wilson_interval(round(ca * images), images)
    attacked = {"asr": asr, "asr_low": asr, "asr_high": asr, "asr_images": images, "triggered_accuracy": 0.0}
    return Rates.model_validate(
        {"split": "val", "ca": ca, "ca_low": low, "ca_high": high, "ca_images": images, **attacked}
    )


def record_of(assignment: Assignment, known: Outcomes) -> TrialRecord:
    """Return the record of a trial that came to what is known, as far as its rule lets it.

    The base need not be on the grid: it has failed, and nothing is learnt.
    """
    at = known.at({path: _setting(assignment.config, path) for path in known.points[0]})
    if at is None:
        return assignment.record(State.FAILED, "not on the grid")
    images = known.study.victim.data.val_images
    rates = [_rates(float(a), float(c), images) for a, c in zip(known.asr[at], known.ca[at], strict=True)]
    epochs = tuple(EpochRecord(epoch=e, seconds=1.0, val=one) for e, one in enumerate(rates, 1))
    rule, found = assignment.stopping, None
    if rule:
        found = rule.first_stop(judged_epochs(epochs, "lowest_asr"), len(epochs), known.poisoned_ca)
    measured = epochs[: found.epoch] if found else epochs
    stages = []
    for name, key, seconds in known.stages[at]:
        if name == LAST and found:
            break
        one = {"stage": name, "key": key, "reused": False, "seconds": seconds}
        if name == JUDGED:
            one |= {"epochs": measured, "complete": not found, "seconds": seconds * len(measured) / len(epochs)}
        stages.append(StageRecord.model_validate(one))
    about: dict[str, Any] = {"state": State.DONE, "val": rates[-1]}
    if found:
        about = {"state": State.PRUNED, "pruned": found}
    about |= {"stages": tuple(stages), "poisoned_val": _rates(1.0, known.poisoned_ca, images)}
    return assignment.record(State.RUNNING).model_copy(update=about)


OURS: dict[str, dict[str, Any]] = {
    "ours": {"sampler": "curves", "startup_trials": 4},
    "ours, stopping": {"sampler": "curves", "startup_trials": 4, "stopping": {}},
    "ours, TPE": {"sampler": "tpe", "stopping": {}},
}
PEERS: dict[str, Searcher] = {
    "random": random,
    "random, stopping": random_stopped,
    "TPE": with_optuna(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "NSGA-II": with_optuna(lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=12)),
    "GP": with_optuna(lambda seed: optuna.samplers.GPSampler(seed=seed)),
    "OptunaSearch": ray_optuna,
    "MOASHA": moasha,
}
FORESIGHT = "foresight"
SEARCHERS: dict[str, Searcher] = {**{name: ours(search) for name, search in OURS.items()}, **PEERS}
"""All but the bound, which is the same in each repetition."""


def courses(table: str, names: list[str], seeds: range, modes: tuple[bool, ...]) -> Iterator[dict[str, Any]]:
    """Yield the course of each replay, repetition by repetition."""
    victims = [(one, _best(one)) for one in read(table)]
    for seed in seeds:
        for known, best in victims:
            for shared in modes:
                for name in names:
                    others = [one for one, _ in victims if one.attack == known.attack and one.seed != known.seed]
                    if name == FORESIGHT and (seed or not others):
                        continue
                    replay = Replay(known, shared, best, others)
                    ({**SEARCHERS, FORESIGHT: foresight})[name](replay, seed)
                    row = {"table": table, "attack": known.attack, "seed": known.seed, "shared": shared}
                    row |= {"searcher": name, "repetition": seed, "budget": round(replay.budget, 2)}
                    yield row | {"course": [(round(t, 2), round(r, 6)) for t, r in replay.course]}


def _best(known: Outcomes) -> float:
    return hypervolume(np.stack([known.asr.ravel(), known.ca.ravel()], axis=1))


def main() -> None:
    """Replay, a JSON line for each search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["demo", "grid"])
    parser.add_argument("--repetitions", type=int, nargs="+", default=[0, 20], help="so many, or from … to …")
    parser.add_argument("--searchers", nargs="+", default=list(SEARCHERS), choices=[*SEARCHERS, FORESIGHT])
    parser.add_argument("--shared", type=int, choices=[0, 1], help="only with sharing, or only without")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    names = list(given.searchers)
    with suppress(ValueError):
        if not _installed("syne_tune"):
            names.remove("MOASHA")
            print("Syne Tune is not installed: MOASHA is left out", file=sys.stderr)
    first, last = given.repetitions if len(given.repetitions) > 1 else (0, given.repetitions[0])
    modes = (False, True) if given.shared is None else (bool(given.shared),)
    out = given.out.open("a") if given.out else sys.stdout
    for row in courses(given.table, names, range(first, last), modes):
        print(json.dumps(row), file=out, flush=True)


def _installed(name: str) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415

    return find_spec(name) is not None


if __name__ == "__main__":
    main()
