"""Further measures in a study: every trial is told of them, and they are not searched."""

from __future__ import annotations

import pytest

from sweeps.planning.plan import plan_study
from sweeps.planning.trials import TrialPlanner
from sweeps.search.proposals import Proposal
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.common.errors import UserError
from ubt.trials.metrics import PacBayes, Retrieval

ASKED = "metrics=[retrieval, {kind: pac_bayes, delta: 0.1}]"


def keys(study: StudyConfig) -> dict[str, str]:
    planner = TrialPlanner(study, "/store", content_key=lambda data: "the data")
    return {node.spec.name: node.key for node in planner.pipeline(Proposal(0), 0)}


def test_every_trial_of_a_study_is_told_what_to_measure() -> None:
    study = load_study("smoke", [ASKED])
    assert study.metrics == (Retrieval(), PacBayes(delta=0.1))
    planned = TrialPlanner(study, "/store", content_key=lambda data: "the data")(
        Proposal(1, {"defense.token_threshold": 0.05}), 0
    )
    assert planned.assignment.config["metrics"] == [measure.as_json() for measure in study.metrics]
    assert [node.spec.name for node in planned.pipeline][-3:] == ["evaluate", "retrieval", "pac_bayes"]
    assert planned.assignment.changes == {"defense.token_threshold": 0.05}


def test_measuring_more_leaves_the_work_of_a_study_as_it_was() -> None:
    plain, measured = keys(load_study("smoke")), keys(load_study("smoke", [ASKED]))
    assert {name: measured[name] for name in plain} == plain
    assert set(measured) - set(plain) == {"retrieval", "pac_bayes"}


def test_a_plan_counts_the_stages_of_the_measures(tmp_path: object) -> None:
    plan = plan_study(load_study("smoke", [ASKED, f"store={tmp_path}"]))
    assert [stage.stage for stage in plan.stages][-3:] == ["evaluate", "retrieval", "pac_bayes"]


def test_measures_are_not_searched() -> None:
    with pytest.raises(UserError, match="metrics: there is no such field to search"):
        load_study("smoke", ["search={design: grid, space: {metrics: [[], [retrieval]]}}"])


def test_an_unknown_measure_is_a_mistake_of_the_study() -> None:
    with pytest.raises(UserError, match=r"metrics\.0\.kind: unknown metric; allowed: retrieval"):
        load_study("smoke", ["metrics=[retreival]"])
