"""A search that begins with what other runs have found out."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from sweeps.run.folder import RunFolder
from sweeps.scheduling.warm_start import keep_warm_start, warm_start, warm_start_text
from sweeps.search.adaptive import Adaptive
from sweeps.search.base import identity
from sweeps.search.earlier import WARM_START
from sweeps.search.optuna_proposer import OptunaProposer
from sweeps.search.optuna_samplers import SAMPLERS
from sweeps.search.proposals import Changes, Earlier, Outcome
from sweeps.study.config import StudyConfig
from sweeps.study.loading import study_of
from tests.sweeps.test_optuna_proposer import BASE, FINITE, LOSS, drive, outcome_of, study_in
from tests.sweeps.test_optuna_rebuilt import DAMAGES, Damage, recorded
from tests.sweeps.toy_session import rates
from ubt.common.errors import UserError
from ubt.trials.record import State, TrialRecord, write_record

RATIO, EPOCHS = "defense.suspicious_ratio", "defense.overfit_epochs"
SPACE: dict[str, Any] = {**FINITE, RATIO: [0.05, 0.06, 0.08]}
CHANGES: list[Changes] = [
    {
        path: value
        for path, value in {EPOCHS: epochs, LOSS: loss, RATIO: ratio}.items()
        if value not in (3, "hinge", 0.05)
    }
    for epochs in (1, 3, 5)
    for loss in ("hinge", "ascent")
    for ratio in (0.05, 0.06, 0.08)
]
RULED_OUT = Outcome(None, ruled_out=True)
OUTCOMES = st.sampled_from([Outcome((0.2, 0.8)), Outcome((0.4, 0.9), 0.05), RULED_OUT, Outcome(None)])
EARLIER = st.dictionaries(st.sampled_from(range(len(CHANGES))), OUTCOMES, max_size=10).map(
    lambda found: [Earlier(CHANGES[at], outcome, f"runs/a/t{at}") for at, outcome in found.items()]
)


def proposer(
    folder: Path, earlier: list[Earlier], known: dict[int, Changes] | None = None, **search: Any
) -> OptunaProposer:
    fields = {"space": SPACE, "n_trials": 9, "startup_trials": 3, **search}
    given = Adaptive.model_validate(fields)
    return OptunaProposer(given, BASE, 3, folder / "optuna.journal", "toy", recorded=known, earlier=earlier)


class TestSampler:
    @settings(max_examples=15)
    @given(earlier=EARLIER, sampler=st.sampled_from([name for name in SAMPLERS if name != "gp"]))
    def test_is_told_and_asks_only_for_what_is_not_known(
        self, tmp_path_factory: pytest.TempPathFactory, earlier: list[Earlier], sampler: str
    ) -> None:
        """But for the base, which is run in any case, and what was ended by a fault, which says nothing."""
        folder = tmp_path_factory.mktemp("warm")
        asked = [proposal.changes for proposal in drive(proposer(folder, earlier, sampler=sampler, n_trials=50))]
        told = [one for one in earlier if one.changes and (one.outcome.values or one.outcome.ruled_out)]
        assert asked[0] == {}
        names = [identity(changes) for changes in (*asked, *(one.changes for one in told))]
        assert sorted(names) == sorted(map(identity, CHANGES)), "all of the space, each once"
        first = study_in(folder).trials[: len(told)]
        assert [trial.values for trial in first] == [
            list(one.outcome.values) if one.outcome.values else None for one in told
        ]
        assert [trial.state is TrialState.PRUNED for trial in first] == [one.outcome.ruled_out for one in told]

    @pytest.mark.parametrize("damage", DAMAGES)
    @settings(max_examples=3)
    @given(stop_after=st.integers(0, 6), chance=st.randoms(use_true_random=False))
    def test_knows_it_again_after_its_storage_was_rebuilt(
        self, tmp_path_factory: pytest.TempPathFactory, damage: Damage, stop_after: int, chance: Random
    ) -> None:
        earlier = [Earlier(CHANGES[at], outcome_of(CHANGES[at]), f"runs/a/t{at}") for at in (1, 4, 8, 11)]
        whole = drive(proposer(tmp_path_factory.mktemp("whole"), earlier))
        folder = tmp_path_factory.mktemp("rebuilt")
        known = recorded(drive(proposer(folder, earlier), 2, stop_after=stop_after))
        damage(folder / "optuna.journal", chance)
        for _ in range(2):
            assert drive(proposer(folder, earlier, known)) == whole
            there = [trial.user_attrs["source"] for trial in study_in(folder).trials if trial.user_attrs]
            assert sorted(there) == sorted(one.source for one in earlier)

    def test_is_told_anew_where_the_outcomes_are_others(self, tmp_path: Path) -> None:
        for asr in (0.2, 0.3):
            earlier = [Earlier(CHANGES[4], Outcome((asr, 0.8)), "runs/a/t4")]
            drive(proposer(tmp_path, earlier))
            assert study_in(tmp_path).trials[0].values == [asr, 0.8]

    def test_draws_nothing_at_random_that_it_knows_enough_of(self, tmp_path: Path) -> None:
        """With as many outcomes as startup trials TPE goes by them from the first question on."""
        good = [one for one in CHANGES if one.get(EPOCHS) == 5 and one]
        earlier = [
            Earlier(changes, Outcome((0.1 if changes in good else 0.9, 0.9)), f"runs/a/t{at}")
            for at, changes in enumerate(CHANGES)
            if at % 3 and changes
        ]
        search = proposer(tmp_path, earlier, n_trials=2)
        assert search.propose() is not None
        assert (second := search.propose()) is not None
        assert second.changes in good


def study(
    name: str,
    folder: Path,
    /,
    seeds: tuple[int, ...] = (0,),
    victim: dict[str, Any] | None = None,
    defense: dict[str, Any] | None = None,
    **search: Any,
) -> StudyConfig:
    space = {RATIO: [0.01, 0.02, 0.05], EPOCHS: [1, 3]}
    given = {"name": name, "store": str(folder / "store"), "seeds": seeds, "victim": victim or {}}
    given["defense"] = {"kind": "ubt", "suspicious_ratio": 0.05, "overfit_epochs": 3, **(defense or {})}
    return study_of({**given, "search": {"design": "grid", "space": space, **search}}, name)


def write_run(folder: Path, of: StudyConfig, trials: list[tuple[Changes, dict[str, Any]]]) -> Path:
    run = RunFolder(folder / of.name)
    run.records.mkdir(parents=True)
    run.write_study(of)
    for number, (changes, fields) in enumerate(trials):
        tree = {"study": of.name, "trial": f"t{number:04d}", "number": number, "seed": 0, "state": State.DONE}
        tree |= {"config": of.trial(changes).as_json(), "changes": changes, "val": rates(), **fields}
        write_record(run.records, TrialRecord.model_validate(tree))
    return run.path


def warm(folder: Path, *runs: Path, **fields: Any) -> StudyConfig:
    return study("warm", folder, design="optuna", warm_start=[str(run) for run in runs], **fields)


FAILED = {"state": State.FAILED, "val": None}


class TestRuns:
    def test_give_their_outcomes_failures_of_the_method_too(self, tmp_path: Path) -> None:
        of = study("other", tmp_path, design="grid")
        run = write_run(
            tmp_path,
            of,
            [
                ({RATIO: 0.01}, {"val": rates(0.3, 0.7), "poisoned_val": rates(0.9, 0.8)}),
                ({RATIO: 0.02}, {**FAILED, "fault": "NotFinite"}),
                ({EPOCHS: 1}, {**FAILED, "fault": "WorkerDied", "lost": True}),
                ({RATIO: 0.02, EPOCHS: 1}, {**FAILED, "fault": "ValueError"}),
                ({RATIO: 0.01, EPOCHS: 1}, {"state": State.PRUNED, "val": None}),
                ({RATIO: 0.05, EPOCHS: 1}, {"state": State.RUNNING, "val": None}),
            ],
        )
        found = {identity(one.changes): one.outcome for one in warm_start(warm(tmp_path, run))}
        ratio = {"defense.suspicious_ratio": 0.01}
        assert set(found) == {
            identity(ratio),
            identity({RATIO: 0.02}),
            identity({**ratio, EPOCHS: 1}),
        }
        assert found[identity(ratio)].values == (0.3, 0.7)
        assert found[identity(ratio)].ca_lost == pytest.approx(0.1)
        assert found[identity({RATIO: 0.02})] == found[identity({**ratio, EPOCHS: 1})] == RULED_OUT
        assert warm_start_text(warm_start(warm(tmp_path, run))).startswith(
            "the search begins with 3 configurations of other runs, 2 of which failed or were pruned"
        )

    def test_may_start_from_another_base(self, tmp_path: Path) -> None:
        """What is searched is not fixed: configurations are told as they differ from this study's base."""
        of = study("other", tmp_path, defense={"suspicious_ratio": 0.01})
        run = write_run(tmp_path, of, [({}, {}), ({RATIO: 0.02}, {})])
        here = warm(tmp_path, run)
        assert [one.changes for one in warm_start(here)] == [{RATIO: 0.01}, {RATIO: 0.02}]

    def test_outside_the_space_are_left_out(self, tmp_path: Path) -> None:
        """As a base may be that is run first."""
        of = study("other", tmp_path, defense={"suspicious_ratio": 0.3})
        run = write_run(tmp_path, of, [({}, {}), ({RATIO: 0.02}, {})])
        assert [one.changes for one in warm_start(warm(tmp_path, run))] == [{RATIO: 0.02}]

    def test_give_the_mean_over_seeds_also_where_two_have_some(self, tmp_path: Path) -> None:
        runs = []
        for name, seed, asr in (("a", 0, 0.2), ("b", 1, 0.4)):
            of = study(name, tmp_path, (seed,))
            runs.append(write_run(tmp_path, of, [({RATIO: 0.02}, {"seed": seed, "val": rates(asr, 0.8)})]))
        (one,) = warm_start(warm(tmp_path, *runs))
        assert one.outcome.values == (pytest.approx(0.3), pytest.approx(0.8))

    @pytest.mark.parametrize(
        ("tree", "said"),
        [
            (
                {"space": {RATIO: [0.01, 0.02], EPOCHS: [1, 3]}},
                f"search.space.{RATIO} is [0.01, 0.02] there",
            ),
            (
                {"space": {RATIO: [0.01, 0.02, 0.05]}},
                f"search.space.{EPOCHS} is not set there and [1, 3] here",
            ),
            ({"defense": {"unlearn_samples": 7}}, "defense.unlearn_samples is 7 there and"),
            ({"victim": {"attack": {"kind": "badnets", "poison_rate": 0.2}}}, "victim.attack.poison_rate is 0.2 there"),
        ],
    )
    def test_of_another_space_or_other_fixed_settings_are_refused(
        self, tmp_path: Path, tree: dict[str, Any], said: str
    ) -> None:
        run = write_run(tmp_path, study("other", tmp_path, **tree), [({}, {})])
        with pytest.raises(UserError) as caught:
            warm_start(warm(tmp_path, run))
        (problem,) = caught.value.problems
        assert said in problem.message
        assert problem.given == str(run)

    def test_that_are_none_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"is no run folder"):
            warm_start(warm(tmp_path, tmp_path / "nothing"))


class TestKept:
    """A run goes on with what it began with."""

    def test_whatever_became_of_the_other_run(self, tmp_path: Path) -> None:
        of = study("other", tmp_path)
        run = write_run(tmp_path, of, [({RATIO: 0.02}, {}), ({RATIO: 0.01}, {**FAILED, "fault": "NotFinite"})])
        here, mine = warm(tmp_path, run, lag=2), tmp_path / "mine"
        mine.mkdir()
        earlier = warm_start(here)
        keep_warm_start(here, mine, earlier)
        (run / "study.json").unlink()
        assert warm_start(here, mine) == earlier
        search = here.search.proposer(here, mine / "optuna.journal")
        assert isinstance(search, OptunaProposer)
        asked = [one.changes for one in drive_all(search)]
        assert {RATIO: 0.02} not in asked
        assert {RATIO: 0.01} not in asked

    def test_but_not_where_the_study_names_others(self, tmp_path: Path) -> None:
        one, other = (write_run(tmp_path, study(name, tmp_path), [({RATIO: 0.02}, {})]) for name in "ab")
        keep_warm_start(warm(tmp_path, one), tmp_path, warm_start(warm(tmp_path, one)))
        (found,) = warm_start(warm(tmp_path, other), tmp_path)
        assert found.source == f"{other}/t0000"

    def test_and_says_so_where_that_is_damaged(self, tmp_path: Path) -> None:
        run = write_run(tmp_path, study("other", tmp_path), [({RATIO: 0.02}, {})])
        (tmp_path / WARM_START).write_text(json.dumps({"runs": 3}))
        with pytest.raises(UserError, match="does not hold what the search began with"):
            warm_start(warm(tmp_path, run), tmp_path)


def drive_all(search: OptunaProposer) -> list[Any]:
    found = []
    while (proposal := search.propose()) is not None:
        found.append(proposal)
        search.tell(proposal, Outcome((0.5, 0.5)))
    return found


def test_another_warm_start_is_another_search(tmp_path: Path) -> None:
    """Its questions have other numbers in the records; without one they are those of before there was any."""
    run = write_run(tmp_path, study("other", tmp_path), [({RATIO: 0.02}, {})])
    names = []
    for one in (warm(tmp_path, lag=1), warm(tmp_path, run, lag=1)):
        proposal = one.search.proposer(one, tmp_path / "optuna.journal").propose()
        assert proposal is not None
        names.append(proposal.asked_as)
    assert names[0] != names[1]


def test_folders_of_runs_are_made_absolute(tmp_path: Path) -> None:
    from sweeps.study.loading import absolute

    assert absolute(["runs/a", "/b"], "search.warm_start", tmp_path) == [f"{tmp_path}/runs/a", "/b"]
