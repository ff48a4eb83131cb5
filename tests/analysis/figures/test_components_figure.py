"""The figure of an ablation: each seed's difference as a point, the mean with its interval."""

import pytest

from analysis.figures.base import Absent
from analysis.figures.components import components_info, draw_components
from analysis.findings import find
from analysis.records import read_run


@pytest.fixture(scope="module", params=[1, 5])
def found(request, made_run, tmp_path_factory):
    folder = made_run(tmp_path_factory.mktemp("ablation") / "run", kind="ablation", seeds=request.param)
    return request.param, components_info(find(read_run(folder)))


def test_each_change_has_its_seeds_and_their_mean_for_both_rates(found):
    seeds, info = found
    assert [name for name, _ in info.rates] == ["ASR", "CA"]
    for _, rows in info.rates:
        assert [row.name for row in rows] == list(info.names)
        for row in rows:
            assert len(row.seeds) == len(row.difference.values) == seeds
            assert row.difference.mean == pytest.approx(sum(row.difference.values) / seeds, abs=1e-9)
            assert row.difference.low <= row.difference.mean <= row.difference.high


def test_points_of_seeds_lie_in_their_row_and_one_seed_is_the_mean_alone(found):
    seeds, info = found
    figure = draw_components(info)
    dots = [trace for trace in figure.data if trace.name == "seeds"]
    assert len(dots) == (2 if seeds > 1 else 0)
    for trace in dots:
        assert len(trace.x) == seeds * len(info.names)
        assert {round(y) for y in trace.y} == set(range(len(info.names)))
    means = [trace for trace in figure.data if trace.name != "seeds"]
    assert all(min(trace.error_x.array) >= 0 and min(trace.error_x.arrayminus) >= 0 for trace in means)


def test_a_search_has_no_components(run_of, trial):
    assert isinstance(components_info(find(run_of(trial(0), trial(1)))), Absent)
