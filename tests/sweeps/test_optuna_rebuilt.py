"""Optuna's storage is a cache of the records: damaged, lost or behind, it is rebuilt, and the search goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from test_optuna_proposer import EPOCHS, RATIO, SPACE, changes_of, drive, proposer, study_in

from sweeps.search.adaptive import Adaptive
from sweeps.search.optuna_proposer import OptunaProposer
from sweeps.search.optuna_samplers import SAMPLERS
from sweeps.search.proposals import Changes, Outcome, Proposal
from sweeps.study.config import StudyConfig
from ubt.common.errors import UserError
from ubt.trials.record import State, TrialRecord

Damage = Callable[[Path, Random], None]


def lose(journal: Path, chance: Random) -> None:
    journal.unlink()


def empty(journal: Path, chance: Random) -> None:
    journal.write_bytes(b"")


def fall_behind(journal: Path, chance: Random) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: chance.randrange(len(lines))]))


def spoil_a_line(journal: Path, chance: Random) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    garbage = [b"\x00" * 30, b"\xff\xfe\n", b"{}\n", b"[]\n", b"garbage\n", b'{"op_code": 99}\n', b"[" * 9999 + b"\n"]
    lines[chance.randrange(len(lines))] = chance.choice(garbage)
    journal.write_bytes(b"".join(lines))


def drop_a_line(journal: Path, chance: Random) -> None:
    """Each line left is an operation, but not all of them make sense any more."""
    lines = journal.read_bytes().splitlines(keepends=True)
    del lines[chance.randrange(len(lines))]
    journal.write_bytes(b"".join(lines))


def change_a_value(journal: Path, chance: Random) -> None:
    """The journal can be read, and says something else than the records."""
    lines = journal.read_text().splitlines(keepends=True)
    valued = [at for at, line in enumerate(lines) if f'"param_name":"{EPOCHS}"' in line]
    if valued:
        at = chance.choice(valued)
        operation = json.loads(lines[at])
        operation["param_value_internal"] = operation["param_value_internal"] % 9 + 1
        lines[at] = json.dumps(operation) + "\n"
        journal.write_text("".join(lines))


DAMAGES = [lose, empty, fall_behind, spoil_a_line, drop_a_line, change_a_value]


def recorded(proposals: list[Proposal]) -> dict[int, Changes]:
    return {proposal.number: proposal.changes for proposal in proposals}


def told(folder: Path) -> list[tuple[Any, ...]]:
    """Return what Optuna knows of each trial, but for those that it had only begun to answer for."""
    trials = study_in(folder).trials
    return [(trial.params, trial.state, trial.values) for trial in trials if len(trial.params) == len(SPACE)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Changes], list[tuple[Any, ...]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return changes_of(drive(proposer(folder))), told(folder)


@pytest.mark.parametrize("damage", DAMAGES)
@settings(max_examples=5)
@given(stop_after=st.integers(1, 7), chance=st.randoms(use_true_random=False))
def test_a_search_goes_on_as_if_nothing_had_happened(
    undisturbed: tuple[list[Changes], list[tuple[Any, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
    damage: Damage,
    stop_after: int,
    chance: Random,
) -> None:
    """The same configurations under the same numbers, the same trials told with the same outcomes, none open."""
    folder = tmp_path_factory.mktemp("damaged")
    known = recorded(drive(proposer(folder), 2, stop_after=stop_after))
    damage(folder / "optuna.journal", chance)
    for _ in range(2):  # and once more, on what it has become
        assert changes_of(drive(proposer(folder, recorded=known))) == undisturbed[0]
        if damage is not drop_a_line:  # what is left may be told before its time, which does not show
            assert told(folder) == undisturbed[1]
        assert all(trial.state.is_finished() for trial in study_in(folder).trials)


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "random", "qmc", "curves"])
def test_every_sampler_is_asked_the_same_again(tmp_path: Path, sampler: str) -> None:
    known = drive(proposer(tmp_path, sampler=sampler))
    before = told(tmp_path)
    (tmp_path / "optuna.journal").unlink()
    assert drive(proposer(tmp_path, sampler=sampler, recorded=recorded(known))) == known
    assert told(tmp_path) == before


def test_a_small_space_is_asked_for_again_as_well(tmp_path: Path) -> None:
    space = {RATIO: [0.05, 0.06], EPOCHS: [1, 3], "defense.unlearn_loss": ["hinge"]}
    known = drive(proposer(tmp_path, space=space, n_trials=50))
    before = told(tmp_path)
    assert len(before) == len(known) == 4
    (tmp_path / "optuna.journal").unlink()
    assert drive(proposer(tmp_path, space=space, n_trials=50, recorded=recorded(known))) == known
    assert told(tmp_path) == before


def test_a_journal_with_repeats_as_they_were_asked_before_goes_on(tmp_path: Path) -> None:
    """Until 0.2 a question might be answered by what was known, and was told again."""
    known = changes_of(drive(proposer(tmp_path), stop_after=3))
    old = study_in(tmp_path)
    first = old.trials[0]
    for _ in range(2):
        repeat = optuna.trial.create_trial(params=first.params, distributions=first.distributions, values=[0.3, 0.8])
        old.add_trial(repeat)
    changes = changes_of(drive(proposer(tmp_path, recorded=dict(enumerate(known)))))
    assert changes[: len(known)] == known
    assert len(changes) == 7
    assert len(study_in(tmp_path).trials) == 9


@pytest.mark.parametrize("base_ratio", [0.05, 0.5], ids=["base inside", "base outside"])
def test_what_has_a_record_is_asked_for_where_optuna_would_answer_otherwise_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_ratio: float
) -> None:
    """As another version of Optuna may."""
    base = {"defense": {"suspicious_ratio": base_ratio, "overfit_epochs": 3, "unlearn_loss": "hinge"}}
    known = changes_of(drive(proposer(tmp_path, base=base), stop_after=5))
    assert 5 <= len(known) < 9
    (tmp_path / "optuna.journal").unlink()
    random = optuna.samplers.RandomSampler
    monkeypatch.setitem(SAMPLERS, "tpe", lambda search, seed, attempt: random(seed=seed + 1 + attempt))
    search = proposer(tmp_path, base=base, n_trials=9, recorded=dict(enumerate(known)))
    changes = changes_of(drive(search))
    assert changes[: len(known)] == known
    assert len(changes) == 9
    trials = study_in(tmp_path).trials
    assert len(trials) == 9 - (base_ratio == 0.5), "no question was asked in vain"
    assert all(trial.state.is_finished() for trial in trials)


def test_a_trial_that_was_lost_and_run_again_brings_no_other_trials(tmp_path: Path) -> None:
    """It was told as a failure, what came after was asked knowing that; now it is told as it ended."""

    def lost(changes: Changes) -> Outcome:
        return Outcome(None)

    search = proposer(tmp_path, n_trials=12, lag=1)
    proposals = []
    while (proposal := search.propose()) is not None:
        proposals.append(proposal)
        good = Outcome((1 / int(proposal.changes.get(EPOCHS, 3)), 0.9))
        search.tell(proposal, lost(proposal.changes) if proposal.number in (2, 4) else good)
    (tmp_path / "optuna.journal").unlink()
    again = proposer(tmp_path, n_trials=12, lag=1, recorded=recorded(proposals))
    rebuilt = []
    while (proposal := again.propose()) is not None:
        rebuilt.append(proposal)
        again.tell(proposal, Outcome((1 / int(proposal.changes.get(EPOCHS, 3)), 0.9)))
    again.finish()
    assert rebuilt == proposals
    assert {trial.state for trial in study_in(tmp_path).trials} == {TrialState.COMPLETE}


class TestNote:
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lose, "is missing"),
            (empty, "lacks 3 of the configurations that have a record"),
            (lambda journal, _: journal.write_bytes(b"garbage\n"), "is damaged in line 1, and set aside as"),
            (lambda journal, _: journal.write_bytes(b'{"op_code": 5}\n'), "cannot be read"),
            (change_a_value, "contradicts the records, and is set aside as"),
        ],
    )
    def test_says_what_was_wrong(
        self, tmp_path: Path, damage: Damage, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        known = recorded(drive(proposer(tmp_path, lag=1), stop_after=3))
        assert len(known) == 3
        damage(tmp_path / "optuna.journal", Random(0))
        proposer(tmp_path, lag=1, recorded=known)
        (message,) = caplog.messages
        assert said in message
        assert message.endswith("it is rebuilt from the records")
        aside = list(tmp_path.glob("optuna.journal.damaged-*"))
        assert len(aside) == ("aside" in said or "cannot" in said)

    def test_is_not_made_where_all_is_well(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        known = recorded(drive(proposer(tmp_path), stop_after=3))
        proposer(tmp_path, recorded=known)
        with (tmp_path / "optuna.journal").open("ab") as stream:
            stream.write(b'{"op_code": 4, "cut')  # what a kill leaves
        proposer(tmp_path, recorded=known)
        assert not caplog.messages
        assert not list(tmp_path.glob("*.damaged-*"))


def test_the_lock_of_a_killed_process_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "optuna.journal.lock").symlink_to("optuna.journal")
    assert proposer(tmp_path).propose()


def test_a_journal_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "optuna.journal").mkdir()
    with pytest.raises(UserError, match="the search cannot be written down"):
        proposer(tmp_path)


class TestRecords:
    """A record says which question it answers."""

    SEARCH = {"design": "optuna", "space": {RATIO: [0.1, 0.2, 0.3], EPOCHS: [1, 2]}, "lag": 1}  # noqa: RUF012

    def study(self, **search: Any) -> StudyConfig:
        return StudyConfig.model_validate({"name": "toy", "search": {**self.SEARCH, **search}})

    def record(self, proposal: Proposal, **fields: Any) -> TrialRecord:
        tree = {"study": "toy", "trial": "t", "number": proposal.number, "seed": 0, "config": {}, "state": State.DONE}
        asked = {"changes": proposal.changes, "asked_as": proposal.asked_as}
        return TrialRecord.model_validate({**tree, **asked, **fields})

    def test_of_the_same_search_only(self, tmp_path: Path) -> None:
        given = self.study()
        assert isinstance(given.search, Adaptive)
        first = given.search.proposer(given, tmp_path / "optuna.journal")
        proposal = first.propose()
        assert proposal is not None
        record = self.record(proposal)
        other = self.study(sampler="random")

        def known_to(study: StudyConfig, record: TrialRecord) -> dict[int, Changes]:
            search = study.search.proposer(study, tmp_path / "optuna.journal", [record])
            assert isinstance(search, OptunaProposer)
            return dict(search._recorded)

        assert known_to(given, record) == {0: proposal.changes}
        assert known_to(other, record) == known_to(given, self.record(proposal, asked_as="")) == {}
