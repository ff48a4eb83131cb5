"""The sampler that learns from epochs and goes by gain for cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution

from analysis.points.geometry import hypervolume
from sweeps.search.adaptive import Adaptive
from sweeps.search.curves.model import CurveModel
from sweeps.search.curves.prices import Prices
from sweeps.search.curves.sampler import added, features_of
from sweeps.search.optuna_proposer import OptunaProposer
from sweeps.search.proposals import Changes, Outcome
from sweeps.study.config import StudyConfig

RATIO, SAMPLES, LOSS = "defense.suspicious_ratio", "defense.unlearn_samples", "defense.unlearn_loss"
BASE: dict[str, Any] = {"defense": {"suspicious_ratio": 0.01, "unlearn_samples": 16, "unlearn_loss": "hinge"}}
SPACE: dict[str, Any] = {
    RATIO: [0.01, 0.02, 0.04, 0.08, 0.16],
    SAMPLES: [16, 32, 64, 128, 256],
    LOSS: ["hinge", "ascent"],
}
BEST = {RATIO: 0.04, SAMPLES: 64}
RATE = st.floats(0, 1, allow_nan=False)


def outcome_of(changes: Changes, epochs: int = 4) -> Outcome:
    """Rates fall off from one best configuration; with `ascent` all of them are bad."""
    ratio, samples = float(str(changes.get(RATIO, 0.01))), float(str(changes.get(SAMPLES, 16)))
    off = abs(np.log2(ratio / 0.04)) + abs(np.log2(samples / 64)) + 3 * (changes.get(LOSS) == "ascent")
    curve = [
        (epoch, 1 - epoch / epochs + epoch / epochs * min(1.0, off / 8), 0.9 - off / 50)
        for epoch in range(1, epochs + 1)
    ]
    return Outcome(curve[-1][1:], epochs=tuple(curve))


def search(folder: Path, **fields: Any) -> OptunaProposer:
    given = {"space": SPACE, "n_trials": 12, "startup_trials": 4, "sampler": "curves", **fields}
    return OptunaProposer(Adaptive.model_validate(given), BASE, 1, folder / "optuna.journal", "toy")


def drive(proposer: OptunaProposer, fails: bool = False) -> list[Changes]:
    asked = []
    while (proposal := proposer.propose()) is not None:
        asked.append(proposal.changes)
        failed = fails and proposal.changes.get(LOSS) == "ascent"
        proposer.tell(proposal, Outcome(None, ruled_out=True) if failed else outcome_of(proposal.changes))
    return asked


def test_finds_the_best_of_fifty_in_twelve(tmp_path: Path) -> None:
    for seed in range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert BEST in drive(search(folder, sampler_seed=seed))


def test_asks_for_nothing_twice_and_ends_when_all_is_known(tmp_path: Path) -> None:
    asked = drive(search(tmp_path, space={RATIO: [0.01, 0.02, 0.04], LOSS: ["hinge", "ascent"]}, n_trials=99))
    assert len(asked) == len({str(sorted(one.items())) for one in asked}) == 6


def test_ranges_too_large_to_be_laid_out_are_drawn_from(tmp_path: Path) -> None:
    space = {RATIO: {"low": 0.005, "high": 0.2, "log": True}, SAMPLES: {"low": 8, "high": 512, "log": True}}
    asked = drive(search(tmp_path, space=space))
    assert len(asked) == 12
    assert min(1 - outcome_of(one).epochs[-1][1] for one in asked[:1]) < max(
        1 - outcome_of(one).epochs[-1][1] for one in asked
    )


def test_where_configurations_fail_it_looks_elsewhere(tmp_path: Path) -> None:
    asked = drive(search(tmp_path, n_trials=20), fails=True)
    assert sum(one.get(LOSS) == "ascent" for one in asked[4:13]) <= 1


@given(st.lists(st.tuples(RATE, RATE), min_size=1, max_size=6), RATE, RATE)
@settings(max_examples=60)
def test_what_a_point_adds_is_what_the_hypervolume_grows_by(
    points: list[tuple[float, float]], asr: float, ca: float
) -> None:
    order = sorted(points, key=lambda one: (one[0], -one[1]))
    front = np.array([one for at, one in enumerate(order) if all(one[1] > before[1] for before in order[:at])])
    grown = hypervolume(np.array([*points, (asr, ca)])) - hypervolume(np.array(points))
    assert added(front, np.array([asr]), np.array([ca]))[0] == pytest.approx(grown, abs=1e-9)


def test_features_lie_between_0_and_1_and_ratios_are_logarithms() -> None:
    spaces = {
        "a": CategoricalDistribution([1, 10, 100]),
        "b": CategoricalDistribution(["x", "y"]),
        "c": FloatDistribution(0, 2),
    }
    rows = features_of([{"a": 10, "b": "y", "c": 0.5}, {"a": 1, "b": "x", "c": 2.0}], spaces)
    assert rows.tolist() == [[0.5, 0.0, 1.0, 0.25], [0.0, 1.0, 0.0, 1.0]]


def test_short_curves_teach_what_their_epochs_say() -> None:
    features = np.linspace(0, 1, 6)[:, None]
    curves = [[(epoch, 1 - epoch * x / 4, 0.9) for epoch in range(1, (2 if x < 0.5 else 4) + 1)] for (x,) in features]
    found = CurveModel(features, curves, 4).predict(np.array([[0.9]]), [1, 4])
    assert found.mean[0, 0] == pytest.approx([1 - 0.9 / 4, 1 - 0.9], abs=0.08)


def test_stages_that_others_bring_along_cost_nothing() -> None:
    study = StudyConfig.model_validate({"name": "toy", "search": {"design": "grid", "space": {RATIO: [0.01, 0.1]}}})
    prices = Prices(study)
    base, longer, other = {}, {"defense.unlearn_epochs": 12}, {RATIO: 0.1}
    alone, after_base = prices.of_all([longer, other], []), prices.of_all([longer, other], [base])
    assert after_base[0] < after_base[1] < alone[1]
    prices.shared = ()
    assert prices.of_all([longer, other], [base]) == alone
