from __future__ import annotations

from typing import Any

import pytest

from sweeps.planning.trials import PlannedTrial, TrialPlanner, shared_epochs
from sweeps.search.proposals import Proposal
from sweeps.study.config import StudyConfig
from ubt.common.errors import UserError
from ubt.data.base import DataSource
from ubt.trials.record import EpochRecord, StageRecord

OVERFIT, UNLEARN, THRESHOLD = "defense.overfit_epochs", "defense.unlearn_epochs", "defense.token_threshold"


def study(search: dict[str, Any] | None = None, **fields: Any) -> StudyConfig:
    defense = {"kind": "ubt", "overfit_epochs": 3, "unlearn_epochs": 4}
    search = search or {"design": "grid"}
    return StudyConfig.model_validate({"name": "toy", "defense": defense, "search": search, **fields})


def plan(given: StudyConfig, changes: dict[str, Any] | None = None, number: int = 0, position: int = 0) -> PlannedTrial:
    return TrialPlanner(given, "/store", "abc", lambda data: "the data")(Proposal(number, changes or {}), position)


def test_an_assignment_says_all_that_a_worker_needs() -> None:
    given = study(seeds=[5, 7], resources={"cpus_per_trial": 3})
    assignment = plan(given, {THRESHOLD: 0.3}, number=4, position=1).assignment
    assert (assignment.study, assignment.trial, assignment.number, assignment.seed) == ("toy", "t0004-s1", 9, 7)
    assert assignment.changes == {THRESHOLD: 0.3}
    assert assignment.config == given.trial({THRESHOLD: 0.3}).as_json()
    assert (assignment.data_key, assignment.store, assignment.commit) == ("the data", "/store", "abc")
    assert assignment.threads == 3


def test_numbers_are_distinct_over_configurations_and_seeds() -> None:
    given = study(seeds=[0, 1, 2])
    planner = TrialPlanner(given, "/store", content_key=lambda data: "the data")
    planned = [planner(Proposal(number), position).assignment for number in range(3) for position in range(3)]
    assert [assignment.number for assignment in planned] == list(range(9))
    assert len({assignment.trial for assignment in planned}) == 9


def test_trials_share_the_stages_before_the_first_that_differs() -> None:
    given = study()
    base, other = plan(given).pipeline, plan(given, {THRESHOLD: 0.3}).pipeline
    same = [node.spec.name for node, twin in zip(base, other, strict=True) if node.key == twin.key]
    assert same == ["pretrain", "poison", "implant", "detect_clean", "suspect", "overfit", "select", "attribute"]


def test_seeds_share_nothing_that_is_random() -> None:
    given = study(seeds=[0, 1])
    first, second = plan(given).pipeline, plan(given, position=1).pipeline
    assert not {node.key for node in first} & {node.key for node in second}


def test_the_data_s_content_is_computed_once_for_all_trials_of_a_study() -> None:
    asked: list[DataSource] = []

    def content_key(data: DataSource) -> str:
        asked.append(data)
        return "the data"

    given = study()
    planner = TrialPlanner(given, "/store", content_key=content_key)
    for number in range(3):
        planner(Proposal(number, {THRESHOLD: number / 10}), 0)
    planner(Proposal(3, {"victim.data.train_pairs": 500}), 0)
    assert len(asked) == 2


def test_a_change_that_is_not_allowed_is_a_mistake() -> None:
    with pytest.raises(UserError, match="token_threshold"):
        plan(study(), {THRESHOLD: 2})


@pytest.mark.parametrize(
    ("search", "kept"),
    [
        ({"design": "grid"}, {}),
        ({"design": "grid", "space": {THRESHOLD: [0.1, 0.2]}}, {}),
        ({"design": "grid", "space": {OVERFIT: [5, 1]}}, {"overfit": (1, 5)}),
        ({"design": "grid", "space": {OVERFIT: [5]}}, {}),
        ({"design": "grid", "space": {OVERFIT: [0, 5]}}, {}),
        ({"design": "grid", "space": {OVERFIT: {"low": 2, "high": 6, "step": 2}}}, {"overfit": (2, 4, 6)}),
        ({"design": "ofat", "space": {OVERFIT: [5, 1]}}, {"overfit": (1, 3, 5)}),
        ({"design": "list", "trials": [{}, {OVERFIT: 1}, {THRESHOLD: 0.2}]}, {"overfit": (1, 3)}),
        ({"design": "list", "trials": [{OVERFIT: 1}, {"defense": {"kind": "none"}}]}, {}),
        ({"design": "optuna", "space": {OVERFIT: [5, 1]}}, {"overfit": (1, 3, 5)}),
        ({"design": "optuna", "space": {OVERFIT: [5, 1], UNLEARN: [8]}}, {"overfit": (1, 3, 5), "unlearn": (4, 8)}),
        ({"design": "optuna", "space": {OVERFIT: {"low": 1, "high": 64, "log": True}}}, {}),
        ({"design": "optuna", "space": {THRESHOLD: [0.1]}}, {}),
    ],
)
def test_the_epochs_kept_are_those_that_trials_end_at(search: dict[str, Any], kept: dict[str, tuple[int, ...]]) -> None:
    """The base's own count too, where the base is run: the longer ones continue from it."""
    assert shared_epochs(study(search)) == kept


class TestPieces:
    """What the gate counts as work: each shared epoch of a chain by itself."""

    GIVEN = study({"design": "grid", "space": {OVERFIT: [1, 3, 5]}})

    def overfit(self, epochs: int) -> tuple[PlannedTrial, Any]:
        planned = plan(self.GIVEN, {OVERFIT: epochs})
        return planned, next(node for node in planned.pipeline if node.spec.name == "overfit")

    def test_a_longer_chain_begins_with_the_whole_of_a_shorter_one(self) -> None:
        pieces = {epochs: planned.pieces(node) for epochs in (1, 3, 5) for planned, node in [self.overfit(epochs)]}
        assert [len(pieces[epochs]) for epochs in (1, 3, 5)] == [1, 2, 3]
        assert pieces[5][:2] == pieces[3]
        assert pieces[3][:1] == pieces[1]

    def test_a_stage_without_epochs_is_one_piece(self) -> None:
        planned, _ = self.overfit(5)
        assert [planned.pieces(node) for node in planned.pipeline[:4]] == [[node.key] for node in planned.pipeline[:4]]

    def test_a_stage_left_out_is_one_piece(self) -> None:
        planned, node = self.overfit(0)
        assert planned.pieces(node) == [node.key]

    @pytest.mark.parametrize(("reached", "done"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
    def test_an_epoch_counts_as_done_when_the_next_is_reported(self, reached: int, done: int) -> None:
        planned, node = self.overfit(5)
        epochs = tuple(EpochRecord(epoch=epoch + 1, seconds=1) for epoch in range(reached))
        stage = StageRecord(stage="overfit", key=node.key, reused=False, seconds=1, complete=False, epochs=epochs)
        assert planned.done_pieces(node, stage) == planned.pieces(node)[:done]

    def test_a_complete_stage_is_done_altogether(self) -> None:
        planned, node = self.overfit(5)
        stage = StageRecord(stage="overfit", key=node.key, reused=True, seconds=1)
        assert planned.done_pieces(node, stage) == planned.pieces(node)
