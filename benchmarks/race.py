"""Whether seeds that are raced lead to the choice that fixed seeds lead to, and with how many trials.

    python benchmarks/race.py runs/demogrid [--replays 300] [--configurations 24] [--scatter 0.02 0.007]

The means are real: rates of configurations that ran to their end, so many of them drawn for each replay. What seeds do
is synthetic: each shifts all configurations by 5 points of ASR and 1 of CA (standard deviations), and each run by
`--scatter` more. A replay counts as alike if the rates, over all five seeds, of the configuration that the race leads
to lie within half a point, in ASR and CA, of those of the one that is chosen with all five seeds for all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from sweeps.scheduling.racing import Raced
from sweeps.search.proposals import DesignProposer, Outcome, Proposal
from sweeps.study.config import Race
from ubt.common.choice import CA_FLOOR, Candidate, choose, nearest
from ubt.common.statistics import wilson_interval
from ubt.trials.record import State, read_records

SEEDS = 5
SHIFTS = (0.05, 0.01)
HALF_A_POINT = 0.005 + 1e-9

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
    proposer = Raced(DesignProposer([Proposal(at) for at in range(len(runs))]), rule, SEEDS, CA_FLOOR)
    made: list[list[tuple[float, float]]] = [[] for _ in runs]
    while not proposer.exhausted:
        open_now = list(iter(proposer.propose, None))
        for proposal in open_now:
            rates = runs[proposal.number][proposal.first]
            made[proposal.number].append(rates)
            proposer.tell(proposal, Outcome(rates, poisoned_ca[proposal.first] - rates[1]))
    return made


def main() -> None:
    """Print a JSON line for each kind of race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="folder of a run whose trials have ended")
    parser.add_argument("--replays", type=int, default=300)
    parser.add_argument("--configurations", type=int, default=24)
    parser.add_argument("--scatter", type=float, nargs=2, default=(0.02, 0.007), help="of ASR and CA, from run to run")
    arguments = parser.parse_args()
    done = [one for one in read_records(arguments.grid / "records") if one.state is State.DONE and one.val]
    means = np.array([(one.val.asr, one.val.ca) for one in done if one.val])
    before = np.array([one.poisoned_val.ca for one in done if one.poisoned_val])
    for by in ("choice", "front"):
        alike, same, shares = [], [], []
        for replay in range(arguments.replays):
            rng = np.random.default_rng(replay)
            drawn = rng.choice(len(means), arguments.configurations, replace=False)
            shifts = rng.normal(0, SHIFTS, (SEEDS, 2))
            scatter = rng.normal(0, arguments.scatter, (len(drawn), SEEDS, 2))
            rates = np.clip(means[drawn][:, None] + shifts + scatter, 0, 1)
            runs = [[(float(asr), float(ca)) for asr, ca in run] for run in rates]
            poisoned_ca = [float(before[0] + shift) for shift in shifts[:, 1]]
            raced = race(runs, poisoned_ca, Race.model_validate({"min": 2, "by": by}))
            fixed, found = chosen(runs, poisoned_ca), chosen(raced, poisoned_ca)
            apart = np.abs(np.mean(runs[found], axis=0) - np.mean(runs[fixed], axis=0))
            alike.append(bool((apart <= HALF_A_POINT).all()))
            same.append(found == fixed)
            shares.append(sum(map(len, raced)) / (SEEDS * len(runs)))
        row = {"by": by, "replays": len(alike), "scatter": list(arguments.scatter)}
        row |= {"alike": fmean(alike), "interval": [round(end, 3) for end in wilson_interval(sum(alike), len(alike))]}
        row |= {"same_configuration": fmean(same), "share_of_trials": round(fmean(shares), 3)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
