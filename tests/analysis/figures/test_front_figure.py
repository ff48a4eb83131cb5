import pytest

from analysis.figures.front import Mark, draw_front, front_info, steps
from analysis.findings import Estimate, find

SAMPLES = "defense.unlearn_samples"


@pytest.fixture
def findings(run_of, trial):
    return find(
        run_of(
            trial(0, asr=0.2, ca=0.81),
            trial(1, asr=0.1, ca=0.805, changes={SAMPLES: 8}),
            trial(2, asr=0.3, ca=0.7, changes={SAMPLES: 16}),
        )
    )


def mark(asr, ca):
    return Mark("", Estimate(asr, asr, asr), Estimate(ca, ca, ca))


def test_every_configuration_is_on_the_front_or_beside_it(findings):
    val, test = front_info(findings).splits
    assert [mark.asr.mean for mark in val.front] == [0.1, 0.2]
    assert [mark.asr.mean for mark in val.others] == [0.3]
    assert [mark.asr.mean for mark in test.front] == [0.11, 0.21]


def test_poisoned_model_base_and_choice_are_marked_on_both_splits(findings):
    val, test = front_info(findings).splits
    assert [marks[0].asr.mean for marks in (val.poisoned, val.base, val.chosen)] == [0.9, 0.2, 0.1]
    assert [marks[0].asr.mean for marks in (test.poisoned, test.base, test.chosen)] == [
        0.89,
        0.21,
        0.11,
    ]


def test_hovering_tells_name_changes_and_rates_with_intervals(findings):
    hover = next(trace for trace in draw_front(front_info(findings)).data if trace.name == "chosen").text[0]
    assert "<b>trial-1</b>" in hover
    assert "unlearn_samples\u00a0=\u00a08" in hover
    assert "ASR 10.0% (8.3–12.0)" in hover


def test_the_test_split_starts_hidden_and_has_neither_line_nor_floor(findings):
    traces = draw_front(front_info(findings)).data
    hidden = [trace for trace in traces if trace.meta["split"] == "test"]
    assert {trace.visible for trace in hidden} == {"legendonly"}
    assert {trace.mode for trace in hidden} == {"markers"}


def test_the_floor_is_that_of_the_victims_accuracy_on_validation(findings):
    val, test = front_info(findings).splits
    assert val.floor == pytest.approx(0.80)
    assert test.floor is None


def test_several_victims_are_all_marked_and_have_no_common_floor(run_of, trial, rates):
    other = trial(1, changes={"victim.attack.target": 1}, poisoned_val=rates(0.7, 0.6))
    val, _ = front_info(find(run_of(trial(0), other))).splits
    assert [mark.asr.mean for mark in val.poisoned] == [0.9, 0.7]
    assert val.floor is None


def test_the_line_bounds_what_the_front_dominates():
    assert steps([mark(0.1, 0.5), mark(0.3, 0.8)]) == [(0.1, 0.5), (0.3, 0.5), (0.3, 0.8)]
    assert steps([]) == []
