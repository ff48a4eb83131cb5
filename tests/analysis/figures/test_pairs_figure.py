"""Pairs of knobs: which are shown, heat maps of few values, contours of many."""

import numpy as np
import pytest

from analysis.figures.base import Absent
from analysis.figures.pairs import BINS, GRID, draw_pairs, explained, levels, pairs_info
from analysis.findings import find

SAMPLES, RATIO, SCOPE, EPOCHS = (f"defense.{name}" for name in ("unlearn_samples", "suspicious_ratio", "scope", "rest"))


def grid(trial, asr):
    """Sixteen trials over two knobs of four values, of the given ASR."""
    points = [(samples, ratio) for samples in (8, 16, 32, 64) for ratio in (0.1, 0.2, 0.3, 0.4)]
    return [
        trial(at, changes={SAMPLES: samples, RATIO: ratio}, asr=asr(samples, ratio))
        for at, (samples, ratio) in enumerate(points)
    ]


def test_knobs_of_few_values_make_a_heat_map_with_medians_and_their_numbers(run_of, trial):
    records = [*grid(trial, lambda samples, ratio: ratio), trial(20, changes={SAMPLES: 8, RATIO: 0.1}, seed=0, asr=0.3)]
    (pair,) = pairs_info(find(run_of(*records[:16], space=[SAMPLES, RATIO]))).pairs
    medians, counts = pair.heat(lambda point: point.asr)
    first, second = (medians, counts) if pair.up.path == RATIO else (np.array(medians).T.tolist(), counts)
    assert [row[0] for row in first] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)
    assert second == [[1] * 4] * 4
    assert not pair.continuous


def test_knobs_of_many_values_make_contours_that_follow_the_rate_and_end_where_nothing_is_near(run_of, trial):
    rng = np.random.default_rng(0)
    at = [(float(x), float(y)) for x, y in rng.uniform(0.2, 0.6, (80, 2))] + [(1.0, 0.99), (0.21, 0.98), (0.99, 0.22)]
    records = [trial(n, changes={RATIO: x, SCOPE: y}, asr=round(0.8 * x, 3)) for n, (x, y) in enumerate(at)]
    info = pairs_info(find(run_of(*records, space=[RATIO, SCOPE])))
    (pair,) = info.pairs
    assert pair.continuous
    surface = pair.surface(lambda point: point.asr)
    assert (len(surface), len(surface[0])) == (GRID, GRID)
    rows = surface if pair.across.path == RATIO else list(zip(*surface, strict=True))
    assert rows[6][2] < rows[6][6] < rows[6][10]
    assert rows[18][17] is None
    assert draw_pairs(info).data[0].type == "contour"


def test_of_many_knobs_those_that_explain_most_are_paired(run_of, trial):
    rng = np.random.default_rng(1)
    knobs = [SAMPLES, RATIO, SCOPE, EPOCHS]
    records = []
    for n in range(60):
        drawn = {path: int(rng.integers(1, 4)) for path in knobs}
        records.append(trial(n, changes=drawn, asr=0.05 + 0.2 * drawn[SAMPLES] + 0.05 * drawn[SCOPE]))
    info = pairs_info(find(run_of(*records, space=knobs)))
    assert len(info.pairs) == 3
    assert info.pairs[0].across.path == SAMPLES
    strong, weak = (explained(pair, lambda point: point.asr) for pair in (info.pairs[0].across, info.pairs[2].up))
    assert 1 >= strong > 0.7 > weak >= 0


def test_a_continuous_knob_beside_one_of_words_is_cut_into_equal_parts(run_of, trial):
    records = [
        trial(n, changes={RATIO: 0.01 * (n + 1), SCOPE: ("token", "caption")[n % 2]}, asr=0.5) for n in range(24)
    ]
    (pair,) = pairs_info(find(run_of(*records, space=[RATIO, SCOPE]))).pairs
    ratio = pair.across if pair.across.path == RATIO else pair.up
    found = levels(ratio)
    assert len(found) == BINS
    assert {len(level.values) for level in found} == {4}
    assert found[0].name == "0.01 … 0.04"
    assert draw_pairs(pairs_info(find(run_of(*records, space=[RATIO, SCOPE])))).data[0].type == "heatmap"


def test_knobs_that_were_varied_one_at_a_time_have_no_plane(run_of, trial):
    records = [trial(0), *(trial(n, changes={SAMPLES: 2**n}) for n in range(1, 6))]
    records += [trial(n, changes={RATIO: 0.01 * n}) for n in range(6, 12)]
    absent = pairs_info(find(run_of(*records, space=[SAMPLES, RATIO])))
    assert isinstance(absent, Absent)
    assert "varied together" in absent.why
