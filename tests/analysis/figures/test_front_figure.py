from dataclasses import replace

import pytest

from analysis.figures.front import Mark, draw_front, front_info, steps
from analysis.findings import find
from analysis.points.configurations import Estimate
from ubt.trials.record import EpochRecord, StageRecord

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


def test_a_member_that_is_not_distinguishable_from_the_choice_has_a_ring_and_each_its_chance(run_of, trial):
    like = find(run_of(trial(0, asr=0.1, ca=0.81), trial(1, asr=0.105, ca=0.815, changes={SAMPLES: 8})))
    val, test = front_info(like).splits
    assert [mark.alike for mark in val.front] == [False, True]
    traces = {trace.name: trace for trace in draw_front(front_info(like)).data}
    assert list(traces["not distinguishable from the choice"].x) == [0.105]
    assert "on the front with a chance of" in traces["front"].text[0]
    assert test.band is None


def test_the_band_encloses_the_front_on_validation(findings):
    val, _ = front_info(findings).splits
    band = next(trace for trace in draw_front(front_info(findings)).data if trace.name == "front, 95%")
    assert len(band.x) == 2 * len(val.band.asr)
    assert all(low <= high for low, high in zip(val.band.low, val.band.high, strict=True))
    for mark in val.front:
        at = min(range(len(val.band.asr)), key=lambda at: abs(val.band.asr[at] - mark.asr.mean))
        assert val.band.low[at] - 0.01 <= mark.ca.mean <= val.band.high[at] + 0.01


def test_earlier_epochs_are_small_dots_beside_the_front(run_of, trial, rates):
    epochs = tuple(
        EpochRecord(epoch=at, seconds=1, val=rates(*pair)) for at, pair in enumerate([(0.3, 0.8), (0.1, 0.81)], 1)
    )
    stage = StageRecord(stage="unlearn", key="u", reused=False, seconds=1, epochs=epochs)
    run = run_of(trial(0, asr=0.1, ca=0.81, changes={"defense.unlearn_epochs": 2}, stages=(stage,)))
    val, test = front_info(find(replace(run, epochs="every"))).splits
    assert [mark.asr.mean for mark in val.epochs] == [0.3]
    assert test.epochs == ()
