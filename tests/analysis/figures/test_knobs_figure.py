from statistics import median

import pytest

from analysis.figures.base import Absent
from analysis.figures.knobs import draw_knobs, knobs_info, scale_of
from analysis.findings import find

SAMPLES, RATIO, SCOPE = "defense.unlearn_samples", "defense.suspicious_ratio", "defense.scope"


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 10], "linear"), ([1, 11], "log"), ([0, 100], "linear"), ([-1, 100], "linear"), ([], "linear")],
)
def test_an_axis_is_logarithmic_beyond_one_decade_of_positive_values(values, scale):
    assert scale_of(values) == scale


def test_each_knob_with_several_values_has_a_panel_in_the_order_of_the_space(run_of, trial):
    info = knobs_info(find(run_of(trial(0), trial(1, changes={SAMPLES: 1024}))))
    (panel,) = info.panels
    assert (panel.path, panel.title, panel.scale) == (SAMPLES, "unlearn_samples", "log")
    assert panel.values == (64.0, 1024.0)


def test_only_trials_that_change_this_knob_alone_join_the_ablation(run_of, trial):
    both = trial(2, changes={SAMPLES: 8, RATIO: 0.5})
    info = knobs_info(find(run_of(trial(0), trial(1, changes={SAMPLES: 8}), both)))
    samples = next(panel for panel in info.panels if panel.path == SAMPLES)
    assert sorted((point.value, point.alone) for point in samples.points) == [
        (8, False),
        (8, True),
        (64, True),
    ]


def test_words_and_switches_are_categories(run_of, trial):
    records = [
        trial(0, changes={SCOPE: "token"}),
        trial(1, changes={SCOPE: "caption"}),
        trial(2, changes={SCOPE: True}),
    ]
    (panel,) = knobs_info(find(run_of(*records, space=[SCOPE]))).panels
    assert (panel.scale, panel.values) == ("category", ("caption", "token", "yes"))


def test_parts_with_a_kind_are_categories_in_words(run_of, trial):
    detectors = [{"kind": "lof"}, {"kind": "knn", "neighbours": 16}]
    records = [trial(n, changes={"defense.detector": detector}) for n, detector in enumerate(detectors)]
    (panel,) = knobs_info(find(run_of(*records, space=["defense.detector"]))).panels
    assert (panel.scale, panel.values) == ("category", ("knn (neighbours 16)", "lof"))


def test_trials_whose_defense_lacks_the_knob_are_left_out(run_of, trial):
    none = trial(2, config={"victim": {}, "defense": {"kind": "none"}}, changes={"defense.kind": "none"})
    info = knobs_info(find(run_of(trial(0), trial(1, changes={SAMPLES: 8}), none)))
    assert [len(panel.points) for panel in info.panels] == [2]


def test_the_chosen_trial_is_marked(run_of, trial):
    info = knobs_info(find(run_of(trial(0, asr=0.3), trial(1, asr=0.1, changes={SAMPLES: 8}))))
    assert [point.value for point in info.panels[0].points if point.chosen] == [8]


def test_knobs_at_one_value_only_leave_nothing_to_show(run_of, trial):
    assert isinstance(knobs_info(find(run_of(trial(0)))), Absent)


@pytest.mark.parametrize("knobs", [1, 4, 5, 9])
def test_any_number_of_knobs_is_drawn(run_of, trial, knobs):
    space = [f"defense.knob{i}" for i in range(knobs)]
    records = [trial(value, changes=dict.fromkeys(space, value)) for value in (1, 2)]
    figure = draw_knobs(knobs_info(find(run_of(*records, space=space))))
    titles = {axis.title.text for axis in figure.select_xaxes() if axis.title.text}
    assert titles == {path.partition(".")[2] for path in space}


def test_a_knob_of_a_few_values_is_labelled_at_them_and_of_many_is_not(run_of, trial):
    def labels(count):
        records = [trial(i, changes={SAMPLES: 8 * i}) for i in range(1, count + 1)]
        return draw_knobs(knobs_info(find(run_of(*records)))).layout.xaxis.ticktext

    assert labels(3) == ("8", "16", "24")
    assert labels(7) is None


def test_of_many_configurations_some_are_dots_and_medians_are_of_all(run_of, trial):
    records = [trial(i, asr=0.0001 * i, changes={SAMPLES: 1 + i % 40, RATIO: 0.001 * i + 0.5}) for i in range(900)]
    samples = next(panel for panel in knobs_info(find(run_of(*records))).panels if panel.path == SAMPLES)
    assert len(samples.dots) == 300
    medians = samples.medians(lambda point: point.asr)
    assert len(medians) == 12
    assert medians[0][1] == pytest.approx(median(0.0001 * i for i in range(900) if i % 40 < 4))


def test_few_configurations_have_no_medians(run_of, trial):
    records = [trial(i, changes={SAMPLES: i}) for i in range(1, 5)]
    assert knobs_info(find(run_of(*records))).panels[0].medians(lambda point: point.ca) == []


def test_long_words_are_cut_on_the_axis_and_whole_where_they_are_pointed_at(run_of, trial):
    detectors = [{"kind": "lof"}, {"kind": "knn", "neighbours": 16}]
    records = [trial(n, changes={"defense.detector": detector}) for n, detector in enumerate(detectors)]
    figure = draw_knobs(knobs_info(find(run_of(*records, space=["defense.detector"]))))
    assert figure.layout.xaxis.ticktext == ("knn (neighbou…", "lof")
    assert any("knn (neighbours 16)" in text for trace in figure.data for text in trace.text or ())
