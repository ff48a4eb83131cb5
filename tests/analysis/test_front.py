import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.findings import front
from analysis.points.configurations import configurations
from analysis.points.geometry import hypervolume, non_dominated

# Few distinct values, so that ties and equal points are common.
RATE = st.integers(0, 12).map(lambda twelfth: twelfth / 12)
POINTS = st.lists(st.tuples(RATE, RATE), max_size=25).map(lambda rows: np.array(rows).reshape(-1, 2))


def naive_non_dominated(points):
    def dominates(p, q):
        return p[0] <= q[0] and p[1] >= q[1] and (p[0] < q[0] or p[1] > q[1])

    return np.array([not any(dominates(p, q) for p in points) for q in points], dtype=bool)


def counted_hypervolume(points, cells=12):
    """The share of a grid's cells whose worst corner no point fails to reach: exact on its points."""
    covered = 0
    for column in range(cells):
        for row in range(cells):
            asr, ca = (column + 0.5) / cells, (row + 0.5) / cells
            covered += any(p[0] <= asr and p[1] >= ca for p in points)
    return covered / cells**2


@given(POINTS)
def test_the_sweep_agrees_with_comparing_all_pairs(points):
    assert np.array_equal(non_dominated(points), naive_non_dominated(points))


@given(POINTS)
def test_the_hypervolume_agrees_with_counting_cells(points):
    assert hypervolume(points) == pytest.approx(counted_hypervolume(points))


@given(POINTS, st.tuples(RATE, RATE))
def test_another_point_never_lowers_the_hypervolume(points, extra):
    more = np.vstack([points, extra])
    assert hypervolume(more) >= hypervolume(points) - 1e-12


def test_a_hypervolume_worked_by_hand():
    points = np.array([[0.1, 0.5], [0.4, 0.8], [0.5, 0.6]])
    assert hypervolume(points) == pytest.approx(0.3 * 0.5 + 0.6 * 0.8)


def test_the_ideal_model_has_hypervolume_one_and_no_model_zero():
    assert hypervolume(np.array([[0.0, 1.0]])) == 1.0
    assert hypervolume(np.empty((0, 2))) == 0.0


def test_points_beyond_the_reference_add_nothing():
    assert hypervolume(np.array([[0.5, 0.9], [0.1, 0.2]]), reference=(0.4, 0.3)) == 0.0


def test_equal_points_are_all_on_the_front(trial):
    records = [trial(i, asr=0.1, ca=0.8, changes={"defense.unlearn_samples": i}) for i in (1, 2)]
    assert [member.number for member in front(configurations(records))] == [1, 2]


def test_the_front_is_ordered_by_rising_asr_and_leaves_out_what_is_not_measured(trial):
    rates = [(0.3, 0.9), (0.1, 0.7), (0.2, 0.6), (0.2, 0.8)]
    records = [trial(i, asr=asr, ca=ca, changes={"defense.unlearn_samples": i}) for i, (asr, ca) in enumerate(rates)]
    failed = trial(9, state="FAILED", changes={"defense.unlearn_samples": 9})
    assert [member.number for member in front(configurations([*records, failed]))] == [1, 3, 0]
