"""Whether seeds that are raced lead to the choice that fixed seeds lead to, and with how many trials.

    python benchmarks/race.py runs/demogrid [--replays 300] [--configurations 24] [--scatter 0.02 0.007]
    python benchmarks/race.py --attack badnets                   # real seeds: those of `search/grid.csv.gz`

Of configurations that ran to their end so many are drawn for each replay. With `--attack` they ran under each of
several seeds, and a replay takes these in an order of its own; `--seeds` more than there are follow from the scatter of
the real ones: what a run of another configuration with about the same ASR differed by. Of a run with one seed only the
means are real, and what seeds do is synthetic: each shifts all configurations by 5 points of ASR and 1 of CA (standard
deviations), and each run by `--scatter` more, as a normal distribution has it. A replay counts as alike if the rates,
over all seeds, of the configuration that the race leads to lie within half a point, in ASR and CA, of those of the one
that is chosen with all seeds for all.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from sweeps.scheduling.racing import Raced
from sweeps.search.proposals import DesignProposer, Outcome, Proposal
from sweeps.study.config import Race
from ubt.common.choice import CA_FLOOR, Candidate, choose, nearest
from ubt.common.statistics import wilson_interval
from ubt.trials.record import State, read_records

NEIGHBOURS = 20
"""Of so many configurations, those nearest in ASR, one lends its scatter."""
SHIFTS = (0.05, 0.01)
HALF_A_POINT = 0.005 + 1e-9

Drawn = tuple[NDArray[np.float64], list[float]]
"""Rates `[C, S, 2]` (ASR, CA) of C configurations under S seeds, and the CA of each seed's poisoned model."""
Draw = Callable[[np.random.Generator], Drawn]
Runs = Sequence[Sequence[tuple[float, float]]]
"""Rates (ASR, CA) of each configuration under each seed that it ran with."""


def chosen(runs: Runs, poisoned_ca: Sequence[float]) -> int:
    """Return which configuration is chosen by the means of its runs."""
    candidates = []
    for at, run in enumerate(runs):
        ca = fmean(one[1] for one in run)
        before = fmean(poisoned_ca[: len(run)])
        candidates.append(Candidate(fmean(one[0] for one in run), ca, before - ca, at))
    found = choose(candidates, CA_FLOOR) or nearest(candidates)
    assert found is not None
    return found.order


def race(runs: Runs, poisoned_ca: Sequence[float], rule: Race) -> Runs:
    """Return the runs that a race has made of all there could be."""
    proposer = Raced(DesignProposer([Proposal(at) for at in range(len(runs))]), rule, len(poisoned_ca), CA_FLOOR)
    made: list[list[tuple[float, float]]] = [[] for _ in runs]
    while not proposer.exhausted:
        open_now = list(iter(proposer.propose, None))
        for proposal in open_now:
            rates = runs[proposal.number][proposal.first]
            made[proposal.number].append(rates)
            proposer.tell(proposal, Outcome(rates, poisoned_ca[proposal.first] - rates[1]))
    return made


def synthetic(run: Path, count: int, seeds: int, scatter: tuple[float, float]) -> Draw:
    """Return what draws configurations of a run with one seed, each with made-up seeds."""
    done = [one for one in read_records(run / "records") if one.state is State.DONE and one.val]
    means = np.array([(one.val.asr, one.val.ca) for one in done if one.val])
    before = next(one.poisoned_val.ca for one in done if one.poisoned_val)

    def draw(rng: np.random.Generator) -> Drawn:
        drawn = rng.choice(len(means), count, replace=False)
        shifts = rng.normal(0, SHIFTS, (seeds, 2))
        rates = means[drawn][:, None] + shifts + rng.normal(0, scatter, (count, seeds, 2))
        return np.clip(rates, 0, 1), [float(before + shift) for shift in shifts[:, 1]]

    return draw


def rates_of(attack: str) -> tuple[NDArray[np.float64], list[float]]:
    """Return the rates `[S, N, 2]` of the configurations that ran under every seed of an attack, and the CA before."""
    sys.path.append(str(Path(__file__).parent / "search"))
    from outcomes import read  # noqa: PLC0415 — beside the table that it reads

    victims = [one for one in read("grid") if one.attack == attack]
    common = [point for point in victims[0].points if all(one.at(point) is not None for one in victims)]
    places = [[one.at(point) for point in common] for one in victims]
    rates = [np.stack([one.asr[at, -1], one.ca[at, -1]], axis=-1) for one, at in zip(victims, places, strict=True)]
    return np.array(rates), [one.poisoned_ca for one in victims]


def scatter_of(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how each run `[S, N, 2]` differs from its configuration's mean, what seeds do to all left out.

    As large as a single run's: means over S seeds take a part of it away.
    """
    effects = rates.mean(axis=1, keepdims=True) - rates.mean(axis=(0, 1))
    left: NDArray[np.float64] = rates - effects - rates.mean(axis=0)
    return left * math.sqrt(len(rates) / (len(rates) - 1))


def measured(rates: NDArray[np.float64], before: list[float], count: int, seeds: int) -> Draw:
    """Return what draws configurations under real seeds, and under made ones where more are asked for."""
    scatter, means = scatter_of(rates), rates.mean(axis=0)
    near = np.argsort(np.abs(means[:, None, 0] - means[None, :, 0]), axis=1)[:, :NEIGHBOURS]
    spread = np.std(rates.mean(axis=1), axis=0, ddof=1)
    more = max(0, seeds - len(rates))

    def draw(rng: np.random.Generator) -> Drawn:
        drawn = rng.choice(len(means), count, replace=False)
        real = rates[:, drawn]
        lenders = near[drawn, rng.integers(near.shape[1], size=(more, count))]
        shifts = rng.normal(0, spread, (more, 2))
        lent = scatter[rng.integers(len(rates), size=(more, count)), lenders]
        made = np.clip(means[drawn] + shifts[:, None] + lent, 0, 1)
        poisoned_ca = [*before, *(float(np.mean(before) + shift) for shift in shifts[:, 1])]
        order = rng.permutation(len(rates) + more)
        return np.concatenate([real, made])[order].swapaxes(0, 1), [poisoned_ca[at] for at in order]

    return draw


def replayed(draw: Draw, by: str, replays: int) -> dict[str, object]:
    """Return how often one kind of race leads to what all seeds for all lead to, and with what share of the trials."""
    alike, same, shares = [], [], []
    for replay in range(replays):
        rates, poisoned_ca = draw(np.random.default_rng(replay))
        runs = [[(float(asr), float(ca)) for asr, ca in run] for run in rates]
        raced = race(runs, poisoned_ca, Race.model_validate({"min": 2, "by": by}))
        fixed, found = chosen(runs, poisoned_ca), chosen(raced, poisoned_ca)
        apart = np.abs(np.mean(runs[found], axis=0) - np.mean(runs[fixed], axis=0))
        alike.append(bool((apart <= HALF_A_POINT).all()))
        same.append(found == fixed)
        shares.append(sum(map(len, raced)) / sum(map(len, runs)))
    row: dict[str, object] = {"by": by, "replays": replays, "seeds": len(poisoned_ca), "alike": fmean(alike)}
    row |= {"interval": [round(end, 3) for end in wilson_interval(sum(alike), replays)]}
    return row | {"same_configuration": fmean(same), "share_of_trials": round(fmean(shares), 3)}


def main() -> None:
    """Print a JSON line for each kind of race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a run whose trials have ended")
    parser.add_argument("--attack", help="real seeds of this attack, instead of a run")
    parser.add_argument("--replays", type=int, default=300)
    parser.add_argument("--configurations", type=int, default=24)
    parser.add_argument("--seeds", type=int, help="five of a run, as many as there are with --attack")
    parser.add_argument("--scatter", type=float, nargs=2, default=(0.02, 0.007), help="of ASR and CA, from run to run")
    given = parser.parse_args()
    if (given.run is None) == (given.attack is None):
        parser.error("give the folder of a run, or --attack")
    if given.attack:
        rates, before = rates_of(given.attack)
        scatter = scatter_of(rates)
        spread = np.sqrt((scatter**2).mean(axis=(0, 1)))
        far = (np.abs(scatter) > 3 * spread).mean(axis=(0, 1))
        about = {"attack": given.attack, "real_seeds": len(rates), "scatter": spread.round(4).tolist()}
        about |= {"beyond_three": far.round(4).tolist()}
        draw = measured(rates, before, given.configurations, given.seeds or len(rates))
    else:
        draw = synthetic(given.run, given.configurations, given.seeds or 5, given.scatter)
        about = {"scatter": list(given.scatter)}
    for by in ("choice", "front"):
        print(json.dumps({**about, **replayed(draw, by, given.replays)}), flush=True)


if __name__ == "__main__":
    main()
