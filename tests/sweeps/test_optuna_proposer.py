"""Optuna by ask and tell, on a real journal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from sweeps.search.adaptive import Adaptive
from sweeps.search.optuna_proposer import OptunaProposer
from sweeps.search.optuna_samplers import SAMPLERS
from sweeps.search.proposals import Changes, Outcome, Proposal

RATIO, EPOCHS, LOSS = "defense.suspicious_ratio", "defense.overfit_epochs", "defense.unlearn_loss"
BASE: dict[str, Any] = {"defense": {"suspicious_ratio": 0.05, "overfit_epochs": 3, "unlearn_loss": "hinge"}}
SPACE: dict[str, Any] = {
    RATIO: {"low": 0.01, "high": 0.1, "log": True},
    EPOCHS: {"low": 1, "high": 9},
    LOSS: ["hinge", "ascent"],
}
FINITE = {EPOCHS: [1, 3, 5], LOSS: ["hinge", "ascent"]}

Finish = Callable[[list[Proposal]], int]
"""Which of the open proposals ends next."""


def first(still_open: list[Proposal]) -> int:
    return 0


def proposer(
    folder: Path,
    lag: int = 3,
    base: dict[str, Any] = BASE,
    recorded: dict[int, Changes] | None = None,
    **search: Any,
) -> OptunaProposer:
    settings = Adaptive.model_validate({"space": SPACE, "n_trials": 7, "startup_trials": 3, **search})
    return OptunaProposer(settings, base, lag, folder / "optuna.journal", "toy", recorded=recorded)


def study_in(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    return optuna.load_study(study_name="toy", storage=optuna.storages.JournalStorage(backend))


def outcome_of(changes: Changes) -> Outcome:
    """ASR falls with the epochs; a large ratio fails."""
    ratio = float(changes.get(RATIO, 0.05))
    if ratio > 0.09:
        return Outcome(None)
    return Outcome((1 / int(changes.get(EPOCHS, 3)), 0.9 - ratio - 0.2 * (changes.get(LOSS) == "ascent")))


def drive(search: OptunaProposer, workers: int = 1, finish: Finish = first, stop_after: int = 10**6) -> list[Proposal]:
    """Run a search on some workers, as a session does, and return its proposals in order.

    After `stop_after` ended trials it is dropped as a killed process drops it.
    """
    proposals: list[Proposal] = []
    waiting: list[Proposal] = []
    running: list[Proposal] = []
    for _ in range(stop_after):
        while (proposal := search.propose()) is not None:
            proposals.append(proposal)
            waiting.append(proposal)
        while waiting and len(running) < workers:
            running.append(waiting.pop(0))
        if not running:
            assert search.exhausted, "nothing runs and nothing is proposed"
            search.finish()
            break
        ended = running.pop(finish(running))
        search.tell(ended, outcome_of(ended.changes))
    return proposals


def changes_of(proposals: list[Proposal]) -> list[Changes]:
    assert [proposal.number for proposal in proposals] == list(range(len(proposals)))
    return [proposal.changes for proposal in proposals]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Changes]:
    """The proposals of one worker that is never interrupted."""
    return changes_of(drive(proposer(tmp_path_factory.mktemp("plain"))))


def test_the_base_comes_first_where_it_lies_in_the_space(plain: list[Changes], tmp_path: Path) -> None:
    assert plain[0] == {}
    assert len(plain) == 7
    drive(proposer(tmp_path))
    assert study_in(tmp_path).trials[0].params == {RATIO: 0.05, EPOCHS: 3, LOSS: "hinge"}


@pytest.mark.parametrize(
    ("space", "base_value"),
    [
        ({EPOCHS: [1, 5]}, "not in the list"),
        ({EPOCHS: {"low": 5, "high": 9}}, "below the range"),
        ({EPOCHS: {"low": 2, "high": 10, "step": 2}}, "between two steps"),
    ],
)
def test_the_base_comes_first_also_where_it_lies_outside(
    space: dict[str, Any], base_value: str, tmp_path: Path
) -> None:
    """It counts as one of the trials; Optuna is not asked for it, and never proposes it."""
    changes = changes_of(drive(proposer(tmp_path, space=space, n_trials=3)))
    assert changes[0] == {}
    assert len(changes) == 3
    asked = [trial.params[EPOCHS] for trial in study_in(tmp_path).trials]
    assert 3 not in asked
    assert {change[EPOCHS] for change in changes[1:]} == set(asked)


def test_a_configuration_is_what_differs_from_the_base(plain: list[Changes], tmp_path: Path) -> None:
    for changes, trial in zip(plain, study_of_plain(tmp_path), strict=True):
        assert changes == {path: v for path, v in trial.params.items() if v != BASE["defense"][path.split(".")[1]]}


def study_of_plain(folder: Path) -> list[optuna.trial.FrozenTrial]:
    drive(proposer(folder))
    return study_in(folder).trials


@settings(max_examples=10)
@given(workers=st.integers(1, 4), chance=st.randoms(use_true_random=False))
def test_proposals_do_not_depend_on_workers_nor_on_who_ends_first(
    plain: list[Changes], tmp_path_factory: pytest.TempPathFactory, workers: int, chance: Random
) -> None:
    search = proposer(tmp_path_factory.mktemp("order"))
    assert changes_of(drive(search, workers, lambda running: chance.randrange(len(running)))) == plain


@settings(max_examples=8)
@given(
    stop_after=st.integers(0, 6),
    again_after=st.integers(0, 6),
    chance=st.randoms(use_true_random=False),
)
def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(
    plain: list[Changes], tmp_path_factory: pytest.TempPathFactory, stop_after: int, again_after: int, chance: Random
) -> None:
    """Twice; each time a new proposer on the old journal, told again what has a record, in whatever order."""
    folder = tmp_path_factory.mktemp("resumed")
    for ended in (stop_after, again_after):
        drive(proposer(folder), 3, lambda running: chance.randrange(len(running)), stop_after=ended)
    assert changes_of(drive(proposer(folder))) == plain
    trials = study_in(folder).trials
    assert [trial.state.is_finished() for trial in trials] == [True] * len(plain)


def test_a_finished_search_is_only_repeated_from_its_journal(plain: list[Changes], tmp_path: Path) -> None:
    drive(proposer(tmp_path))
    before = (tmp_path / "optuna.journal").read_text()
    assert changes_of(drive(proposer(tmp_path))) == plain
    asked_or_told = [json.loads(line) for line in (tmp_path / "optuna.journal").read_text()[len(before) :].splitlines()]
    assert len(study_in(tmp_path).trials) == len(plain), asked_or_told


def test_a_kill_at_any_moment_costs_nothing(plain: list[Changes], tmp_path: Path) -> None:
    """The journal is cut after each line that the first questions have written, and within it."""
    search = proposer(tmp_path)
    assert search.propose()
    assert search.propose()
    lines = (tmp_path / "optuna.journal").read_bytes().splitlines(keepends=True)
    assert len(lines) >= 8
    for number, line in enumerate(lines):
        for part in (0, 9):
            folder = tmp_path / f"cut {number} {part}"
            folder.mkdir()
            (folder / "optuna.journal").write_bytes(b"".join(lines[:number]) + line[:part])
            assert changes_of(drive(proposer(folder))) == plain
            assert all(trial.state.is_finished() for trial in study_in(folder).trials)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome(None), TrialState.FAIL),
        (Outcome(None, ruled_out=True), TrialState.PRUNED),
        (Outcome((math.nan, 0.5)), TrialState.PRUNED),
        (Outcome((0.5, math.inf)), TrialState.PRUNED),
    ],
)
def test_what_says_something_of_its_configuration_is_told_so_that_tpe_learns(
    outcome: Outcome, state: TrialState, tmp_path: Path
) -> None:
    """FAIL it leaves out of account. No value is made up: a constraint is broken."""
    search = proposer(tmp_path, n_trials=2)
    bad, good = search.propose(), search.propose()
    search.tell(good, Outcome((0.1, 0.9)))
    search.tell(bad, outcome)
    search.finish()
    told = study_in(tmp_path).trials
    assert [trial.state for trial in told] == [state, TrialState.COMPLETE]
    assert [trial.constraints for trial in told] == [{"failed": 1.0} if state is TrialState.PRUNED else {}, {}]


def test_tpe_turns_away_from_what_fails(tmp_path: Path) -> None:
    """Of the ruinous third of the space it tries fewer than chance would."""
    space = {RATIO: {"low": 0.01, "high": 0.1}, EPOCHS: {"low": 1, "high": 9}, LOSS: ["hinge", "ascent", "tokens"]}
    search, ruinous = proposer(tmp_path, space=space, n_trials=45, startup_trials=6, lag=1), []
    while (proposal := search.propose()) is not None:
        ruinous.append(proposal.changes.get(LOSS) == "tokens")
        good = Outcome((1 / int(proposal.changes.get(EPOCHS, 3)), 0.9 - float(proposal.changes.get(RATIO, 0.05))))
        search.tell(proposal, Outcome(None, ruled_out=True) if ruinous[-1] else good)
    assert sum(ruinous[10:]) <= 5, "of 35; a third would be 12"


def test_a_good_outcome_is_kept_as_asr_to_lower_and_ca_to_raise(tmp_path: Path) -> None:
    search = proposer(tmp_path, n_trials=1)
    search.tell(search.propose(), Outcome((0.1, 0.9)))
    search.finish()
    study = study_in(tmp_path)
    assert study.trials[0].values == [0.1, 0.9]
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]


def test_a_search_waits_for_the_outcome_that_it_depends_on(tmp_path: Path) -> None:
    search = proposer(tmp_path, lag=2)
    zero, one = search.propose(), search.propose()
    assert search.propose() is None
    search.tell(one, Outcome((0.1, 0.9)))
    assert search.propose() is None
    search.tell(zero, Outcome((0.2, 0.8)))
    assert search.propose() is not None


def test_outcomes_within_the_lag_are_not_told_before_their_turn(tmp_path: Path) -> None:
    search = proposer(tmp_path, lag=3)
    open_proposals = [search.propose() for _ in range(3)]
    for proposal in open_proposals:
        search.tell(proposal, Outcome((0.5, 0.5)))
    search.propose()
    assert [trial.state.is_finished() for trial in study_in(tmp_path).trials] == [True, False, False, False]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_distinct_configurations_again_and_again(sampler: str, tmp_path: Path) -> None:
    found = []
    for name in ("once", "again"):
        folder = tmp_path / name
        folder.mkdir()
        found.append(changes_of(drive(proposer(folder, sampler=sampler, n_trials=6), workers=2)))
        assert not [trial for trial in study_in(folder).trials if trial.state == TrialState.RUNNING]
    assert found[0] == found[1]
    assert len({json.dumps(changes, sort_keys=True) for changes in found[0]}) == 6


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("base_inside", [True, False])
def test_a_finite_space_is_exhausted_whatever_the_sampler_repeats(
    sampler: str, base_inside: bool, tmp_path: Path
) -> None:
    space = FINITE if base_inside else {**FINITE, EPOCHS: [1, 2, 5]}
    search = proposer(tmp_path, space=space, sampler=sampler, n_trials=50)
    changes = changes_of(drive(search, workers=2))
    assert len({json.dumps(change, sort_keys=True) for change in changes}) == len(changes)
    assert len(changes) == (6 if base_inside else 7)
    assert not [trial for trial in study_in(tmp_path).trials if trial.state == TrialState.RUNNING]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_known_is_asked_for(sampler: str, tmp_path: Path) -> None:
    """Also where a third fails, which samplers other than TPE leave out of account."""
    space = {**FINITE, RATIO: [0.05, 0.06, 0.1]}
    changes = changes_of(drive(proposer(tmp_path, space=space, sampler=sampler, n_trials=14)))
    asked = [json.dumps(trial.params, sort_keys=True) for trial in study_in(tmp_path).trials]
    assert len(asked) == len(set(asked)) == len(changes) == 14


def test_configurations_that_a_condition_makes_one_are_counted_once(tmp_path: Path) -> None:
    search = {"space": FINITE, "when": {EPOCHS: {LOSS: "ascent"}}, "n_trials": 50}
    changes = changes_of(drive(proposer(tmp_path, **search)))
    there = [{}, {LOSS: "ascent"}, {LOSS: "ascent", EPOCHS: 1}, {LOSS: "ascent", EPOCHS: 5}]
    assert sorted(json.dumps(change, sort_keys=True) for change in changes) == sorted(
        json.dumps(change, sort_keys=True) for change in there
    )


def test_a_search_of_a_large_space_that_finds_nothing_new_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its condition leaves two configurations of many points; too many to be laid out."""
    space = {EPOCHS: {"low": 1, "high": 20_000}, LOSS: ["hinge", "ascent"]}
    search = {"space": space, "when": {EPOCHS: {LOSS: "neither"}}, "sampler": "random", "n_trials": 50}
    changes = changes_of(drive(proposer(tmp_path, **search)))
    assert changes == [{}, {LOSS: "ascent"}]
    assert "nothing new is found: the search ends after 2 configurations of the 50 asked for" in caplog.text


def test_a_finite_space_gives_as_many_as_are_asked_for(tmp_path: Path) -> None:
    changes = changes_of(drive(proposer(tmp_path, space=FINITE, n_trials=5)))
    assert len(changes) == 5


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
def test_another_seed_is_another_search(sampler: str, tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found.append(changes_of(drive(proposer(folder, sampler=sampler, sampler_seed=seed))))
    assert found[0] != found[1]


def test_lists_and_mappings_can_be_searched(tmp_path: Path) -> None:
    base = {"victim": {"attack": {"kind": "sig"}}, "defense": {"layers": [1, 2]}}
    attacks, layers = [{"kind": "sig"}, {"kind": "badnets", "size_px": 3}, {"kind": "blended"}], [[1, 2], [3]]
    space = {"victim.attack": attacks, "defense.layers": layers}
    changes = changes_of(drive(proposer(tmp_path, base=base, space=space, n_trials=50)))
    assert changes[0] == {}
    assert len(changes) == 6
    for change in changes:
        assert change.get("victim.attack", attacks[0]) in attacks
        assert change.get("defense.layers", [3]) == [3]


def test_values_of_a_range_in_steps_are_as_one_writes_them(tmp_path: Path) -> None:
    """So that the base's 0.3 and the range's 0.1 + 2 · 0.1 are one configuration."""
    base = {"defense": {"suspicious_ratio": 0.3}}
    space = {RATIO: {"low": 0.1, "high": 0.7, "step": 0.1}}
    changes = changes_of(drive(proposer(tmp_path, base=base, space=space, n_trials=50)))
    assert sorted(change.get(RATIO, 0.3) for change in changes) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


@pytest.mark.filterwarnings("ignore")
def test_optuna_s_dashboard_shows_the_study(tmp_path: Path) -> None:
    from wsgiref.util import setup_testing_defaults

    from optuna_dashboard import wsgi

    drive(proposer(tmp_path, n_trials=3))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.journal"))
    application = wsgi(optuna.storages.JournalStorage(backend))

    def get(path: str) -> Any:
        environment: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
        setup_testing_defaults(environment)
        statuses: list[str] = []
        body = b"".join(application(environment, lambda status, headers, *_: statuses.append(status)))
        assert statuses == ["200 OK"], body
        return json.loads(body)

    (summary,) = get("/api/studies")["study_summaries"]
    assert summary["study_name"] == "toy"
    detail = get(f"/api/studies/{summary['study_id']}")
    assert [trial["state"] for trial in detail["trials"]] == ["Complete"] * 3
