"""Whether there is enough data for a trial: what is let through leaves every stage something to work on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.errors import UserError
from ubt.data.base import DataSet, Labelled, Pairs
from ubt.defenses.base import Counts
from ubt.defenses.baselines import Abl, Finetune, Oracle
from ubt.defenses.ubt import Ubt
from ubt.trials.config import TrialConfig
from ubt.trials.feasible import check_trial, check_victim

RATIOS = st.floats(min_value=1e-6, max_value=1)


def data(
    pairs: int = 8, pretrain: int | None = 8, val: tuple[int, ...] = (0, 1), test: tuple[int, ...] = (0, 1)
) -> DataSet:
    """Return a data set of the classes `cat` and `dog`, whose captions name cats."""

    def some(count: int) -> Pairs:
        return Pairs(np.zeros((count, 2, 2, 3), dtype=np.uint8), ["a cat"] * count)

    def labelled(labels: tuple[int, ...]) -> Labelled:
        return Labelled(np.zeros((len(labels), 2, 2, 3), dtype=np.uint8), np.array(labels, dtype=np.int64))

    clean = None if pretrain is None else some(pretrain)
    return DataSet(some(pairs), labelled(val), labelled(test), ("cat", "dog"), ("a {}",), clean)


def problems(found: DataSet, **victim: object) -> list[str]:
    config = TrialConfig.model_validate({"victim": {"attack": {"kind": "badnets", "target": "cat"}, **victim}}).victim
    try:
        check_victim(config, found)
    except UserError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_enough_is_enough() -> None:
    assert problems(data()) == []
    assert problems(data(val=(1,), test=(1,))) == [], "a class without images is no mistake"
    assert problems(data(pretrain=None), model={"random_weights": True}) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (data(pairs=1), "has 1 training pair;"),
        (data(pairs=0), "has 0 training pairs;"),
        (data(pretrain=1), "has 1 pre-training pair;"),
        (data(pretrain=None), "has no `pretrain` pairs"),
        (data(val=()), "has no validation images"),
        (data(test=()), "has no test images"),
        (data(val=(0, 0)), "all 2 validation images are of the target `cat`"),
        (data(test=(0,)), "all 1 test images are of the target `cat`"),
    ],
)
def test_too_little_is_told(found: DataSet, told: str) -> None:
    (problem,) = problems(found)
    assert told in problem


def test_without_an_attack_nothing_is_stamped() -> None:
    assert problems(data(val=(0, 0)), attack=None) == []


@given(st.integers(2, 300), st.integers(1, 400))
def test_some_pairs_stay_clean(pairs: int, count: int) -> None:
    told = problems(data(pairs), attack={"kind": "badnets", "target": "cat", "poison_count": count})
    assert bool(told) == (count >= pairs)


@given(st.integers(2, 500), RATIOS, RATIOS, RATIOS)
def test_what_is_let_through_leaves_suspects_and_pairs_to_hold(
    pairs: int, look: float, suspect: float, hold: float
) -> None:
    defense = Ubt(screened_ratio=look, suspicious_ratio=suspect, retain_ratio=hold)
    looked_at = max(2, round(look * pairs))
    suspects = max(2, round(suspect * looked_at))
    enough = round(suspect * looked_at) >= 1 and looked_at - suspects >= 2
    try:
        check_trial(TrialConfig(defense=defense), data(pairs), 0)
    except UserError:
        assert not enough
    else:
        assert enough


@pytest.mark.parametrize(
    ("defense", "counts", "enough"),
    [
        (Abl(isolation_ratio=0.9), Counts(10, 1, None, 2), True),
        (Abl(isolation_ratio=0.99), Counts(10, 1, None, 2), False),
        (Abl(), Counts(2, 1, None, 2), False),
        (Oracle(), Counts(10, 8, None, 2), True),
        (Oracle(), Counts(10, 9, None, 2), False),
        (Finetune(), Counts(10, 1, 2, 2), True),
        (Finetune(), Counts(10, 1, 1, 2), False),
        (Ubt(retain_weight=0, suspicious_ratio=1), Counts(2, 1, None, 2), True),
    ],
)
def test_each_defense_says_what_it_needs(defense: Abl | Oracle | Finetune | Ubt, counts: Counts, enough: bool) -> None:
    if enough:
        defense.check_counts(counts)
    else:
        with pytest.raises(UserError):
            defense.check_counts(counts)


@pytest.mark.parametrize(
    ("metric", "found", "poisoned", "enough"),
    [
        ("retrieval", data(4), 2, True),
        ("retrieval", data(4), 3, False),
        ("rebound", data(4, pretrain=2), 3, True),
        ("rebound", data(4, pretrain=None), 3, False),
        ("linear_probe", data(val=(0, 1)), 1, True),
        ("linear_probe", data(val=(1, 1)), 1, False),
    ],
)
def test_each_metric_says_what_it_needs(metric: str, found: DataSet, poisoned: int, enough: bool) -> None:
    trial = TrialConfig.model_validate({"defense": {"kind": "none"}, "metrics": [metric]})
    if enough:
        check_trial(trial, found, poisoned)
    else:
        with pytest.raises(UserError, match=f"metrics: {metric}: needs"):
            check_trial(trial, found, poisoned)
