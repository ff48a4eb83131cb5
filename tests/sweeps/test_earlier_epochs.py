"""Earlier epochs of a front as trials: when they are proposed, under which numbers, and what the search is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toy_session import ToyProposer, rates

from sweeps.planning.trials import TrialPlanner
from sweeps.run.earlier_epochs import with_earlier_epochs
from sweeps.run.folder import RunFolder
from sweeps.scheduling.earlier_epochs import EarlierEpochs
from sweeps.search.proposals import Outcome, Proposal, Proposer
from sweeps.study.config import StudyConfig
from ubt.trials.labels import TrialLabel
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord, write_record

EPOCHS, SAMPLES = "defense.unlearn_epochs", "defense.unlearn_samples"
OUTCOME = Outcome((0.1, 0.8))


def drain(proposer: Proposer) -> list[Proposal]:
    return list(iter(proposer.propose, None))


def epoch(number: int, of: str = "t0000") -> Proposal:
    return Proposal(0, {EPOCHS: number}, TrialLabel(epoch_of=f"{of}@{number}"))


def test_earlier_epochs_come_after_the_last_outcome_of_the_search_until_there_are_no_new_ones() -> None:
    search, asked = ToyProposer([{}, {SAMPLES: 8}]), [[epoch(3)], [epoch(3), epoch(2)], [epoch(2)]]
    proposer = EarlierEpochs(search, lambda: asked.pop(0))
    first = drain(proposer)
    assert [proposal.number for proposal in first] == [0, 1]
    proposer.tell(first[0], OUTCOME)
    assert (drain(proposer), proposer.exhausted) == ([], False)  # one is open
    proposer.tell(first[1], OUTCOME)
    (second,) = drain(proposer)
    assert (second.number, second.changes) == (2, {EPOCHS: 3})
    assert drain(proposer) == []
    proposer.tell(second, Outcome(None))
    (third,) = drain(proposer)
    assert (third.number, third.label.epoch_of) == (3, "t0000@2")
    proposer.tell(third, OUTCOME)
    assert (drain(proposer), proposer.exhausted, asked) == ([], True, [])
    assert [number for number, _ in search.told] == [0, 1]


def test_a_search_that_waits_for_an_outcome_is_waited_for() -> None:
    search = ToyProposer([{}, {SAMPLES: 8}, {SAMPLES: 16}], lag=1)
    proposer = EarlierEpochs(search, lambda: [])
    numbers = []
    while not proposer.exhausted:
        for proposal in drain(proposer):
            numbers.append(proposal.number)
            proposer.tell(proposal, OUTCOME)
    assert numbers == [0, 1, 2]


def study(**fields: Any) -> StudyConfig:
    space = {SAMPLES: [8, 16]}
    tree = {
        "name": "toy",
        "defense": {"kind": "ubt", "unlearn_epochs": 4},
        "search": {"design": "grid", "space": space},
    }
    return StudyConfig.model_validate({**tree, **fields})


def planner(given: StudyConfig) -> TrialPlanner:
    return TrialPlanner(given, "/store", content_key=lambda data: "the data")


def record(given: StudyConfig, proposal: Proposal, pairs: list[tuple[float, float]], position: int = 0) -> TrialRecord:
    planned = planner(given)(proposal, position)
    epochs = tuple(EpochRecord(epoch=at, seconds=1, val=rates(*pair)) for at, pair in enumerate(pairs, 1))
    stage = StageRecord(stage="unlearn", key=f"u{proposal.number}", reused=False, seconds=4, epochs=epochs)
    done = {"stages": (stage,), "val": rates(*pairs[-1]), "test": rates(*pairs[-1]), "poisoned_val": rates(0.9, 0.82)}
    return planned.assignment.record(State.DONE).model_copy(update=done)


def run_with(folder: Path, given: StudyConfig, records: list[TrialRecord]) -> RunFolder:
    run = RunFolder(folder)
    run.records.mkdir(parents=True)
    run.study.write_text(json.dumps(given.as_json()))
    for one in records:
        write_record(run.records, one)
    return run


COURSE = [(0.5, 0.7), (0.05, 0.81), (0.04, 0.82), (0.3, 0.75)]


def test_the_front_of_the_run_folder_says_which_epochs_become_trials(tmp_path: Path) -> None:
    given = study(seeds=[0, 1])
    first = Proposal(0, {SAMPLES: 8})
    run = run_with(tmp_path / "run", given, [record(given, first, COURSE, position) for position in (0, 1)])
    plans = planner(given)
    proposer = with_earlier_epochs(ToyProposer([]), given, run, plans)
    (wanted,) = drain(proposer)
    assert wanted.changes == {SAMPLES: 8, EPOCHS: 3}
    assert wanted.label.epoch_of == "t0000-s0@3"
    planned = plans(wanted, 1)
    assert planned.assignment.seed == 1
    unlearn = next(node for node in planned.pipeline if node.spec.name == "unlearn")
    whole = next(node for node in plans(first, 1).pipeline if node.spec.name == "unlearn")
    assert unlearn.key == whole.at(3).key  # the very model that was judged on the way
    write_record(run.records, record(given, wanted, COURSE[:3], 0))
    write_record(run.records, record(given, wanted, COURSE[:3], 1))
    proposer.tell(wanted, OUTCOME)
    assert (drain(proposer), proposer.exhausted) == ([], True)


def test_a_study_of_last_epochs_and_one_that_compares_have_no_further_trials(tmp_path: Path) -> None:
    for given in (study(objectives={"epochs": "last"}), study(search={"design": "ofat", "space": {SAMPLES: [8]}})):
        search = ToyProposer([])
        assert with_earlier_epochs(search, given, RunFolder(tmp_path), planner(given)) is search


def test_two_epochs_of_one_trial_share_the_work_up_to_the_first(tmp_path: Path) -> None:
    given = study()
    course = [(0.0, 0.7), (0.05, 0.81), (0.1, 0.82), (0.3, 0.75)]
    run = run_with(tmp_path / "run", given, [record(given, Proposal(0, {SAMPLES: 8}), course)])
    plans = planner(given)
    wanted = drain(with_earlier_epochs(ToyProposer([]), given, run, plans))
    assert [proposal.changes[EPOCHS] for proposal in wanted] == [1, 2, 3]
    keys = [plans(proposal, 0) for proposal in wanted]
    unlearn = [next(node for node in planned.pipeline if node.spec.name == "unlearn") for planned in keys]
    assert keys[2].pieces(unlearn[2]) == [node.key for node in unlearn]


def test_a_record_that_cannot_be_read_ends_no_sweep(tmp_path: Path, caplog: Any) -> None:
    given = study()
    run = run_with(tmp_path / "run", given, [])
    (run.records / "t0000.json").write_text("{")
    assert drain(with_earlier_epochs(ToyProposer([]), given, run, planner(given))) == []
    assert "earlier epochs on the front are not run" in caplog.text
