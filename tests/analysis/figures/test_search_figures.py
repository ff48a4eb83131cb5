"""Hypervolume over a search, configurations as lines, the chain, and what workers did."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.figures.base import Absent
from analysis.figures.chain import chain_info
from analysis.figures.search import draw_growth, draw_parallel, growth_info, parallel_info
from analysis.figures.workers import draw_workers, workers_info
from analysis.findings import find
from ubt.trials.record import Attempt, StageRecord

SAMPLES, RATIO = "defense.unlearn_samples", "defense.suspicious_ratio"


def test_the_hypervolume_grows_with_the_trials(run_of, trial):
    records = [trial(n, asr=0.5 - n / 10, ca=0.8, changes={SAMPLES: n}) for n in range(1, 4)]
    reached = draw_growth(growth_info(find(run_of(*records)))).data[0].y
    assert list(reached) == pytest.approx([0.6 * 0.8, 0.7 * 0.8, 0.8 * 0.8])


def test_lines_stand_at_the_rank_of_a_value_and_words_in_alphabetical_order(run_of, trial):
    detectors = [{"kind": "lof"}, {"kind": "abl"}, {"kind": "knn"}]
    values = zip((1, 1000, 10), detectors, strict=True)
    records = [
        trial(n, asr=0.1 * n, changes={SAMPLES: samples, "defense.detector": detector})
        for n, (samples, detector) in enumerate(values)
    ]
    info = parallel_info(find(run_of(*records, space=[SAMPLES, "defense.detector"])))
    samples, detector, asr, _ = info.axes
    assert (samples.places, samples.labels) == ((0.0, 1.0, 0.5), ("1", "1000"))
    assert (detector.places, detector.labels) == ((1.0, 0.0, 0.5), ("abl", "lof"))
    assert asr.labels == ("0.0%", "20.0%")
    assert info.chosen == 0
    assert [trace.name for trace in draw_parallel(info).data][-1] == "chosen"


def test_of_many_configurations_the_front_and_the_choice_are_always_lines(run_of, trial):
    records = [trial(n, asr=0.5 + n / 9000, changes={SAMPLES: 1 + n, RATIO: n / 1000}) for n in range(900)]
    best = trial(901, asr=0.01, changes={SAMPLES: 950, RATIO: 0.95})
    info = parallel_info(find(run_of(*records, best)))
    assert len(info.titles) < 210
    assert info.trials[info.chosen] == "trial-901"


def test_one_knob_makes_no_lines(run_of, trial):
    assert isinstance(parallel_info(find(run_of(trial(0), trial(1, changes={SAMPLES: 8})))), Absent)


def test_the_chain_has_a_panel_for_each_diagnostic_that_varies(run_of, trial):
    def stages(recall):
        return (StageRecord(stage="suspect", key="s", reused=False, seconds=1, diagnostics={"recall": recall}),)

    records = [trial(n, asr=0.1 * n, changes={SAMPLES: n}, stages=stages(n / 10)) for n in range(1, 4)]
    (panel,) = chain_info(find(run_of(*records)))
    assert [value for value, *_ in panel.points] == pytest.approx([0.1, 0.2, 0.3])
    assert [asr for _, asr, *_ in panel.points] == pytest.approx([0.1, 0.2, 0.3])


def at(second):
    return f"2026-01-01T00:00:{second:02d}+00:00"


def computed(key, start, end, **fields):
    times = {"started_at": at(start), "ended_at": at(end)}
    return StageRecord(**{"stage": "unlearn", "key": key, "reused": False, "seconds": 1, "node": "a"} | times | fields)


def test_stages_at_the_same_time_on_a_node_have_lanes_of_their_own_and_reused_ones_none(run_of, trial):
    first = trial(0, stages=(computed("u", 0, 10), computed("v", 10, 20)))
    second = trial(1, changes={SAMPLES: 8}, stages=(computed("w", 5, 15), computed("u", 0, 10, reused=True)))
    info = workers_info(find(run_of(first, second)))
    assert [(bar.trial, bar.lane, bar.seconds) for bar in info.stages] == [
        ("trial-0", "a · 1", 10),
        ("trial-1", "a · 2", 10),
        ("trial-0", "a · 1", 10),
    ]
    assert info.lanes == ("a · 1", "a · 2")
    assert [bar.reused_by for bar in info.stages] == [1, 0, 0]
    said = {text for bar in draw_workers(info).data for text in bar.text}
    assert "trial-0 unlearn, 10 s<br>reused by 1 trial" in said
    assert "trial-1 unlearn, 10 s" in said


def started(start, seconds, *earlier, node="a"):
    """The times of a trial's last start, and of earlier ones (start, end)."""
    before = (Attempt(started_at=at(a), ended_at=at(b), node=node, ended_by="a signal") for a, b in earlier)
    attempts = (*before, Attempt(started_at=at(start), node=node))
    return {"started_at": at(start), "seconds": float(seconds), "attempts": attempts}


def test_a_trial_is_in_one_lane_with_what_it_computed_and_a_lane_without_one_waits(run_of, trial):
    first = trial(0, stages=(computed("u", 1, 9), computed("v", 11, 14)), **started(0, 16))
    second = trial(1, changes={SAMPLES: 8}, stages=(computed("w", 11, 19),), **started(10, 12))
    third = trial(2, changes={SAMPLES: 9}, **started(25, 5))
    info = workers_info(find(run_of(first, second, third)))
    assert [(bar.trial, bar.lane, bar.seconds) for bar in info.trials] == [
        ("trial-0", "a · 1", 16),
        ("trial-1", "a · 2", 12),
        ("trial-2", "a · 1", 5),
    ]
    assert {bar.lane for bar in info.stages if bar.trial == "trial-0"} == {"a · 1"}
    # The first lane is free from 16 on, of which the other one runs until 22; nothing ran from 22 to 25.
    assert [(bar.lane, bar.seconds) for bar in info.waits] == [("a · 2", 10), ("a · 1", 6)]
    assert {"10 s without a trial", "6.0 s without a trial"} <= {
        text for bar in draw_workers(info).data for text in bar.text
    }


def test_what_another_worker_computes_beside_a_trial_is_in_a_lane_of_its_own(run_of, trial):
    implant = computed("i", 0, 20, spent_seconds=19)  # which was published while `detect` began
    beside, elsewhere = computed("s", 5, 12, spent_seconds=7), computed("e", 6, 9, spent_seconds=3, node="b")
    stages = (implant, beside, elsewhere, computed("d", 19, 25, spent_seconds=6))
    info = workers_info(find(run_of(trial(0, stages=stages, **started(0, 26)))))
    assert [(bar.lane, bar.seconds) for bar in info.stages] == [("a · 1", 20), ("a · 2", 7), ("b · 1", 3), ("a · 1", 6)]
    assert [(bar.lane, bar.seconds) for bar in info.trials] == [("a · 1", 26), ("a · 2", 7), ("b · 1", 3)]


SPANS = st.tuples(st.integers(0, 40), st.integers(1, 19), st.sampled_from(["a", "b"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(SPANS, max_size=4), min_size=1, max_size=4))
def test_no_lane_has_two_trials_at_a_time_and_each_stage_is_in_one(run_of, trial, drawn):
    records = []
    for number, spans in enumerate(drawn):
        stages = tuple(
            computed(f"{number}-{at}", start, start + length, spent_seconds=length, node=node)
            for at, (start, length, node) in enumerate(spans)
        )
        records.append(trial(number, changes={SAMPLES: 8 + number}, stages=stages, **started(0, 30)))
    info = workers_info(find(run_of(*records)))
    if not any(drawn):
        assert isinstance(info, Absent)
        return
    assert sorted(bar.seconds for bar in info.stages) == sorted(length for spans in drawn for _, length, _ in spans)
    for lane in info.lanes:
        ends = [(bar.start, bar.start + bar.seconds) for bar in info.trials if bar.lane == lane]
        assert ends, "no lane is empty"
        assert all(end <= start + 0.001 for (_, end), (start, _) in pairwise(sorted(ends)))


def test_the_time_between_an_interruption_and_its_resume_is_nobody_s(run_of, trial):
    again = trial(0, stages=(computed("u", 1, 5), computed("v", 51, 55)), **started(50, 8, (0, 9)))
    info = workers_info(find(run_of(again)))
    assert [(bar.start - info.trials[0].start, bar.seconds) for bar in info.trials] == [(0, 9), (50, 8)]
    assert info.waits == ()
    assert info.lanes == ("a · 1",)
