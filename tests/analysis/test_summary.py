import json
from dataclasses import replace

import pytest

from analysis.findings import find
from analysis.opening.words import states_text
from analysis.summary import failures_text, stopped_text, summarise, wall_seconds
from ubt.common.choice import KNOWS
from ubt.common.errors import UserError
from ubt.trials.budget import Budget
from ubt.trials.stopping import Pruned

SAMPLES = "defense.unlearn_samples"


def test_the_json_is_as_promised(run_of, trial):
    run = run_of(
        trial(0, asr=0.3, ca=0.85),
        trial(1, asr=0.1, ca=0.81, changes={SAMPLES: 8, "defense.token_threshold": 0.3}),
        trial(2, state="FAILED", fault="UserError", changes={SAMPLES: 16}),
    )
    assert json.loads(summarise(find(run)).model_dump_json()) == {
        "name": "toy",
        "states": {"RUNNING": 0, "DONE": 2, "PRUNED": 0, "FAILED": 1, "INTERRUPTED": 0},
        "earlier_epochs": 0,
        "failures": {"mistake": 1},
        "compared": "",
        "poisoned": {"val": {"asr": 0.9, "ca": 0.82}, "test": {"asr": 0.89, "ca": 0.83}},
        "chosen": {
            "trial": "trial-1",
            "name": "trial-1",
            "config": {"defense.suspicious_ratio": 0.01, SAMPLES: 8, "defense.token_threshold": 0.3},
            "val": {"asr": 0.1, "ca": 0.81},
            "test": {"asr": 0.11, "ca": pytest.approx(0.82)},
            "epoch": 2,
        },
        "rule": "lowest_asr",
        "knew": KNOWS["lowest_asr"],
        "otherwise": {},
        "front": ["trial-1", "trial-0"],
        "front_chances": [pytest.approx(1, abs=0.01), pytest.approx(1, abs=0.01)],
        "like_chosen": [],
        "epochs": "last",
        "hypervolume": pytest.approx(0.2 * 0.81 + 0.7 * 0.85),
        "stages": {"computed": 2, "reused": 2},
        "gates": {},
        "stopped": None,
        "seconds": {"wall": 22.0, "computed": 8.0, "saved": 20.0},
        "budget": {},
        "planned": None,
    }


def test_what_was_stopped_early_is_counted_in_epochs(run_of, trial):
    rule = {"stage": "unlearn", "by": "rank", "settings": {}, "choice": "lowest_asr"}
    ends = [Pruned.model_validate({**rule, "epoch": epoch, "epochs": 8}) for epoch in (2, 3)]
    stopped = [trial(at, state="PRUNED").model_copy(update={"pruned": end}) for at, end in enumerate(ends)]
    findings = find(run_of(*stopped, trial(2)))
    assert stopped_text(summarise(findings).stopped) == " (after 5 of 16 epochs)"
    assert states_text(findings) == "3 trials: 1 done and 2 pruned (after 5 of 16 epochs)."


def test_what_is_used_of_a_budget_is_counted_by_the_records(run_of, trial):
    run = replace(run_of(trial(0), trial(1, changes={SAMPLES: 8})), budget=Budget(trials=2, hours=3), gpus=0.5)
    assert {name: (use.used, use.limit) for name, use in summarise(find(run)).budget.items()} == {
        "trials": (2, 2),
        "hours": (pytest.approx(run.spent.hours), 3),
    }
    assert " Of the budget are used 2 of 2 trials (reached), " in run.budget_text


def test_settings_that_the_chosen_defense_does_not_have_are_not_told(run_of, trial):
    none = {"victim": {}, "defense": {"kind": "none"}}
    summary = summarise(find(run_of(trial(0, ca=0.5), trial(1, config=none, changes={"defense.kind": "none"}))))
    assert summary.chosen.config == {"defense.kind": "none"}


def test_without_a_qualified_trial_chosen_is_null(run_of, trial):
    summary = summarise(find(run_of(trial(0, ca=0.5))))
    assert summary.chosen is None
    assert summary.front == ("trial-0",)
    assert summary.poisoned.val.asr == 0.9


def test_without_a_done_trial_front_and_hypervolume_are_empty(run_of, trial):
    summary = summarise(find(run_of(trial(0, state="FAILED", poisoned_val=None, poisoned_test=None))))
    assert (summary.chosen, summary.front, summary.hypervolume) == (None, (), 0.0)
    assert summary.poisoned.val is None


def test_rates_are_means_over_seeds(run_of, trial):
    summary = summarise(find(run_of(trial(0, seed=0, asr=0.1, ca=0.82), trial(1, seed=1, asr=0.3, ca=0.84))))
    assert summary.chosen.val.asr == pytest.approx(0.2)
    assert summary.chosen.val.ca == pytest.approx(0.83)


def test_wall_time_spans_time_zones_and_ends_with_the_last_trial(trial):
    early = trial(0, started_at="2026-01-01T12:00:00+02:00", seconds=4000)
    late = trial(1, started_at="2026-01-01T10:30:00", seconds=60)
    waiting = trial(2, started_at="", state="RUNNING")
    assert wall_seconds([late, early, waiting]) == 4000
    assert wall_seconds([waiting]) == 0


def test_the_pause_before_a_resume_is_no_wall_time(trial):
    days = [f"2026-01-{day:02}T10:00:00+00:00" for day in (1, 1, 3)]
    records = [
        trial(n, started_at=day, seconds=seconds)
        for n, (day, seconds) in enumerate(zip(days, (60, 90, 30), strict=True))
    ]
    assert wall_seconds(records) == 90 + 30


def test_a_start_that_is_no_time_is_told_with_its_trial(trial):
    with pytest.raises(UserError, match="trial-0: started_at"):
        wall_seconds([trial(0, started_at="yesterday")])


def test_what_trials_failed_by_is_counted_apart_also_of_old_records(run_of, trial):
    run = run_of(
        trial(0),
        trial(1, state="FAILED", fault="UnusableStore", lost=True),
        trial(2, state="FAILED", fault="WeakImplant"),
        trial(3, state="FAILED", fault="NotFinite"),
        trial(4, state="FAILED", fault="UserError"),
        trial(5, state="FAILED", fault="UnfitNode", lost=True, failure="mistake"),
        trial(6, state="FAILED"),  # by what is not known
    )
    summary = summarise(find(run))
    assert summary.failures == {"fault": 1, "mistake": 2, "method": 2}
    assert failures_text(summary.failures) == " (1 by a fault, 2 by a mistake, 2 by the method)"
    assert failures_text({}) == ""
    assert states_text(find(run)) == "7 trials: 1 done and 6 failed (1 by a fault, 2 by a mistake, 2 by the method)."
