"""What a run was planned to take, against what it took."""

import pytest

from analysis import load_run, write_report
from analysis.costs import cost_table
from analysis.planned import planned_text, planned_times
from analysis.records import read_run
from ubt.trials.labels import TrialLabel
from ubt.trials.planned import PLAN_FILE, PlannedCosts
from ubt.trials.record import read_records, write_record


@pytest.fixture
def planned(run_folder, trial):
    """Return a run folder with a plan in it, whose one trial took a second for each of its stages."""

    def build(seconds, wall_seconds=30.0):
        record = trial(0)
        stages = tuple(stage.model_copy(update={"spent_seconds": 1.0, "reused": False}) for stage in record.stages)
        folder = run_folder(record.model_copy(update={"stages": stages, "seconds": 40.0}))
        plan = PlannedCosts(seconds=seconds, wall_seconds=wall_seconds, workers=2, gpus=0, trials=1)
        (folder / PLAN_FILE).write_text(plan.model_dump_json())
        return folder, [stage.stage for stage in stages]

    return build


def test_stages_are_set_against_their_plan(planned):
    _, names = planned({})
    folder, _ = planned(dict.fromkeys(names, 2.0))
    times = planned_times(read_run(folder))
    assert times.factor == pytest.approx(0.5)
    assert (times.planned, times.actual, times.unknown) == (2.0 * len(names), len(names), ())
    assert "(0.50 ×)" in planned_text(times, 40.0)
    assert "40 s of 30 s at least" in planned_text(times, 40.0)
    rows = [[cell.text for cell in row] for row in cost_table(times).rows]
    assert rows[0] == [names[0], "2.0 s", "1.0 s", "0.50"]


def test_trials_of_earlier_epochs_are_in_no_plan_and_counted_apart(planned):
    _, names = planned({})
    folder, _ = planned(dict.fromkeys(names, 2.0))
    (first,) = read_records(folder / "records")
    later = first.model_copy(update={"trial": "t0001", "number": 1, "label": TrialLabel(epoch_of="t0000@2")})
    write_record(folder / "records", later)
    times = planned_times(read_run(folder))
    assert (times.factor, times.actual) == (pytest.approx(0.5), len(names))
    assert (times.later, times.later_trials) == (len(names), 1)
    assert f"earlier epochs, 1 of them, took {len(names)}" in planned_text(times, 40.0)


def test_what_was_unknown_is_left_out_of_the_factor_and_named(planned):
    _, names = planned({})
    folder, _ = planned({name: None if name == names[0] else 4.0 for name in names}, wall_seconds=None)
    times = planned_times(read_run(folder))
    assert times.planned is None
    assert times.factor == pytest.approx(0.25)
    assert times.unknown == (names[0],)
    assert f"without {names[0]}, which were unknown" in planned_text(times, 40.0)
    assert [cell.text for cell in cost_table(times).rows[0]] == [names[0], "unknown", "1.0 s", "–"]


def test_a_plan_that_knew_nothing_has_no_factor(planned):
    folder, _ = planned({})
    times = planned_times(read_run(folder))
    assert times.factor is None
    assert planned_text(times, 1.0).startswith("planned: unknown; took")


def test_the_report_and_the_summary_have_it(planned):
    _, names = planned({})
    folder, _ = planned(dict.fromkeys(names, 2.0))
    page = write_report(folder).page.read_text(encoding="utf-8")
    assert 'id="costs"' in page
    assert load_run(folder).summary.planned.factor == pytest.approx(0.5)


@pytest.mark.parametrize("content", [None, "", "{", '{"seconds": 3}'])
def test_a_run_without_a_plan_or_with_a_spoilt_one_is_read_all_the_same(planned, content):
    folder, _ = planned({})
    (folder / PLAN_FILE).unlink()
    if content is not None:
        (folder / PLAN_FILE).write_text(content)
    assert load_run(folder).summary.planned is None
    assert 'id="costs"' not in write_report(folder).page.read_text(encoding="utf-8")
