"""What sets the best trials apart, held against Optuna's own evaluator."""

import math
import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from analysis.effects.importance import distribution_of, param_of
from analysis.effects.ped_anova import axis_of, lowest, nearest_front, shares_among_best


def made_up(trials: int, seed: int) -> tuple[dict[str, list], np.ndarray]:
    """Return columns of each kind of knob, and a rate that some of them move."""
    rng = np.random.default_rng(seed)
    columns = {
        "log": [float(value) for value in np.exp(rng.uniform(math.log(1e-4), math.log(1), trials))],
        "grid": [float(value) for value in rng.choice([0.05, 0.1, 0.2, 0.3], trials)],
        "whole": [int(value) for value in rng.integers(1, 9, trials)],
        "wide": [int(value) for value in 2 ** rng.integers(2, 10, trials)],
        "word": [str(value) for value in rng.choice(["clean", "knn", "abl"], trials)],
    }
    rate = 0.1 * np.log10(columns["log"]) + 0.05 * np.array(columns["whole"]) + rng.normal(0, 0.05, trials)
    return columns, rate + 0.3 * (np.array(columns["word"]) == "knn")


@pytest.mark.parametrize(("trials", "seed"), [(12, 0), (60, 1), (400, 2)])
def test_shares_are_those_of_optuna(trials: int, seed: int) -> None:
    columns, rate = made_up(trials, seed)
    best = max(5, math.ceil(trials / 10))
    spaces = {path: distribution_of(values) for path, values in columns.items()}
    kinds = [type(spaces[path]) for path in ("log", "whole", "word")]
    assert kinds == [FloatDistribution, IntDistribution, CategoricalDistribution]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    for at in range(trials):
        params = {path: param_of(values[at], spaces[path]) for path, values in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=float(rate[at])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=best / trials))
    ours = shares_among_best({path: axis_of(values) for path, values in columns.items()}, lowest(rate, best))
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_the_lowest_are_so_many_and_those_equal_to_the_last() -> None:
    assert lowest(np.array([0.3, 0.1, 0.2, 0.2, 0.9]), 2).tolist() == [False, True, True, True, False]


def test_those_near_the_front_are_taken_front_after_front() -> None:
    first, second = [(0.1, 0.5), (0.2, 0.6)], [(0.2, 0.5), (0.3, 0.55)]
    points = np.array([*second, *first, (0.9, 0.1)])
    assert nearest_front(points, 2).tolist() == [False, False, True, True, False]
    assert nearest_front(points, 4).tolist() == [True, True, True, True, False]
    assert nearest_front(points, 5).all()


def test_of_a_front_that_is_too_long_those_stay_that_dominate_most_alone() -> None:
    front = np.array([(0.1, 0.1), (0.2, 0.4), (0.21, 0.41), (0.5, 0.8), (0.9, 0.9)])
    assert nearest_front(front, 3).tolist() == [True, False, False, True, True]


def test_many_equal_points_are_no_longer_than_asked_for() -> None:
    assert nearest_front(np.array([(0.1, 0.1)] * 9), 4).sum() == 4
