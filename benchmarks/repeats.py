"""How often Optuna's samplers draw what a search knows already, where a third of the configurations must fail.

    python benchmarks/repeats.py [--trials 60] [--samplers tpe nsgaii random qmc]

The space of `adaptive.py`, without its training: rates are a smooth function of the settings, and the ruinous learning
rate fails. Nothing is computed, so it takes seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from sharing import SPACE

from sweeps.search.adaptive import Adaptive
from sweeps.search.optuna_proposer import OptunaProposer
from sweeps.search.proposals import Changes, Outcome

RATE, RUINOUS = "defense.unlearn_learning_rate", 1e4
BASE = {"suspicious_ratio": 0.05, "overfit_epochs": 3, "token_threshold": 0.1, "unlearn_samples": 32}


def outcome_of(changes: Changes) -> Outcome:
    """Return rates that pull in two directions; none for the ruinous learning rate."""
    at = {**{f"defense.{name}": value for name, value in BASE.items()}, RATE: 1e-4, **changes}
    if at[RATE] == RUINOUS:
        return Outcome(None, ruled_out=True)
    pairs, epochs = float(at["defense.unlearn_samples"]), float(at["defense.overfit_epochs"])
    ratio, threshold, rate = (float(at[path]) for path in ("defense.suspicious_ratio", "defense.token_threshold", RATE))
    strength = pairs / 64 * rate / 2e-4 * (1 - threshold)
    return Outcome((1 / (1 + 6 * strength * epochs / 5), 0.9 - 0.2 * strength - ratio))


def search(sampler: str, trials: int, lag: int = 4) -> dict[str, object]:
    """Run a search without workers, and count what it asked and drew."""
    settings = Adaptive.model_validate(
        {"space": {**SPACE, RATE: [1e-4, 2e-4, RUINOUS]}, "n_trials": trials, "sampler": sampler}
    )
    base = {"defense": {**BASE, "unlearn_learning_rate": 1e-4}}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        proposer = OptunaProposer(settings, base, lag, Path(folder) / "optuna.journal", "repeats")
        failed, configurations = 0, 0
        while (proposal := proposer.propose()) is not None:
            configurations += 1
            outcome = outcome_of(proposal.changes)
            failed += outcome.values is None
            proposer.tell(proposal, outcome)
        proposer.finish()
        return {
            "sampler": sampler,
            "configurations": configurations,
            "failed": failed,
            "questions": proposer.questions,
            "questions_repeated": proposer.questions - configurations,
            "draws": proposer.drawn.all,
            "draws_known_before": proposer.drawn.known,
            "cpu_seconds": round(time.process_time() - began, 1),
        }


def main() -> None:
    """Search by each sampler, and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--samplers", nargs="+", default=["tpe", "nsgaii", "random", "qmc"])
    arguments = parser.parse_args()
    for sampler in arguments.samplers:
        print(json.dumps(search(sampler, arguments.trials)), flush=True)


if __name__ == "__main__":
    main()
