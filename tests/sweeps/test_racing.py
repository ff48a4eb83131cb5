"""Seeds that are raced: who competes, in which rounds seeds are given, and what the search learns."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_session import ToyPlanner, ToyProposer, rates

from sweeps.planning.layout import lay_out
from sweeps.scheduling.racing import Raced, adjusted_means, competitors
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.budgeted import Limited
from sweeps.search.proposals import Changes
from sweeps.study.config import Race, StudyConfig
from ubt.common.errors import UserError
from ubt.config import validate
from ubt.engine.graph import build_pipeline
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.record import StageRecord, State, TrialRecord, read_records

FRONT, CHOICE = Race(min=2, by="front"), Race(min=2, by="choice")
SEEDS = 5
MEANS = [(0.1, 0.8), (0.12, 0.805), (0.5, 0.7), (0.9, 0.95), (0.8, 0.6), (0.11, 0.79), (0.7, 0.65), (0.6, 0.5)]
"""Two that are hard to tell apart, one near them, one that is on the front for sure, and others that are not."""


def seeds_of(mean: tuple[float, float], count: int, scatter: float, rng: np.random.Generator):
    return [tuple(np.array(mean) + scatter * rng.standard_normal(2)) for _ in range(count)]


def test_of_those_that_scatter_only_what_is_open_competes() -> None:
    rng = np.random.default_rng(1)
    found = {at: seeds_of(mean, 2, 0.01, rng) for at, mean in enumerate(MEANS)}
    lost = {at: 0.81 - mean[1] for at, mean in enumerate(MEANS)}
    competing = competitors(found, lost, FRONT, 0.02)
    assert {0, 1} & set(competing)
    assert not {2, 3, 4, 6, 7} & set(competing)
    assert set(competitors(found, lost, CHOICE, 0.02)) <= {0, 1, 5}


@given(st.integers(2, 8), st.integers(2, 4))
def test_none_competes_where_seeds_differ_by_what_they_do_to_all(count: int, seeds: int) -> None:
    found = {at: [(0.1 * at + 0.01 * s, 0.5 + 0.05 * at - 0.02 * s) for s in range(seeds)] for at in range(count)}
    assert competitors(found, dict.fromkeys(found, 0.0), FRONT, 0.02) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6), st.integers(0, 3))
def test_means_do_not_depend_on_which_seeds_a_configuration_has_run_with(
    own: list[tuple[float, float]], more: int
) -> None:
    effects = [(0.03 * at, -0.02 * at) for at in range(2 + more)]
    runs = [[(a + e, c + f) for e, f in effects[: 2 + (more if place % 2 else 0)]] for place, (a, c) in enumerate(own)]
    means, spread = adjusted_means(runs)
    off = means - np.array(own)
    assert np.allclose(off, off[0])  # the same for all: what the first two seeds do on average
    assert np.allclose(spread, 0)


def layout(count: int) -> list[Changes]:
    return [{"defense.unlearn_learning_rate": 1e-4 * (1 + at)} for at in range(count)]


def run(assignment: Assignment) -> TrialRecord:
    """Run a trial whose rates scatter around its configuration's."""
    random = Random(assignment.number)
    mean = MEANS[assignment.number // SEEDS]
    asr, ca = (min(1.0, max(0.0, one + random.gauss(0, 0.01))) for one in mean)
    pipeline = build_pipeline(TrialConfig.model_validate(assignment.config), assignment.seed, assignment.data_key)
    stages = tuple(StageRecord(stage=one.spec.name, key=one.key, reused=False, seconds=1) for one in pipeline)
    about = {"stages": stages, "val": rates(asr, ca), "poisoned_val": rates(1.0, 0.81)}
    return assignment.record(State.DONE).model_copy(update=about)


def sweep(folder: Path, workers: int, order: Random, known: list[TrialRecord], most: int | None = None):
    """Return the names of the trials that were run, and what the search learnt."""
    toy = ToyProposer(layout(len(MEANS)), lag=4)
    proposer = Raced(toy, FRONT, SEEDS, 0.02)
    limited = Limited(proposer, most, SEEDS) if most else proposer
    session = Session(limited, ToyPlanner(SEEDS), SEEDS, StageScheduler(), folder, known)
    running: list[Assignment] = []
    names = []
    while True:
        while len(running) < workers and (assignment := session.next_assignment()) is not None:
            running.append(assignment)
        if not running:
            assert session.finished
            return sorted(names), sorted(toy.told)
        assignment = running.pop(order.randrange(len(running)))
        names.append(assignment.trial)
        session.ended(assignment.trial, run(assignment))


def test_those_that_compete_run_with_more_seeds_the_same_on_any_number_of_workers(tmp_path: Path) -> None:
    names, told = sweep(tmp_path / "one", 1, Random(0), [])
    seeds = [sum(name.startswith(f"t{at:04d}") for name in names) for at in range(len(MEANS))]
    assert min(seeds) == 2
    assert seeds[2:5] == [2, 2, 2]
    assert max(seeds[:2]) > 2
    assert [number for number, _ in told] == list(range(len(MEANS)))  # once each, of the first two seeds
    for workers in (2, 3, 8):
        assert sweep(tmp_path / str(workers), workers, Random(workers), []) == (names, told)


def test_a_race_that_goes_on_runs_what_is_left_of_it(tmp_path: Path) -> None:
    names, told = sweep(tmp_path / "whole", 2, Random(0), [])
    known = read_records(tmp_path / "whole")[::2]
    rest, told_again = sweep(tmp_path / "rest", 3, Random(1), known)
    assert rest == sorted(set(names) - {record.trial for record in known})
    assert told_again == told


def test_a_budget_of_trials_counts_each_seed_once(tmp_path: Path) -> None:
    assert len(sweep(tmp_path, 2, Random(0), [], most=7)[0]) == 7


def study(seeds: object, **parts: object) -> StudyConfig:
    return validate(StudyConfig, {"name": "s", "seeds": seeds, **parts}, "s.yaml")


def test_seeds_are_written_as_a_race_and_read_back() -> None:
    raced = study({"min": 2, "max": 4, "race": "choice"})
    assert (raced.seeds, raced.race) == ((0, 1, 2, 3), Race(min=2, by="choice"))
    assert validate(StudyConfig, raced.as_json(), "study.json") == raced
    assert (raced.trials, raced.least_trials) == (4, 2)
    assert any("seeds are raced" in note for note in lay_out(raced).notes)


@pytest.mark.parametrize(
    ("seeds", "parts", "message"),
    [
        ({"min": 1, "max": 5}, {}, "`min` must be at least 2"),
        ({"min": 3, "max": 3}, {}, "less than `max`"),
        ({"least": 2, "max": 5}, {}, "give a list of seeds"),
        ({"max": 5}, {"search": {"design": "leave_one_out"}}, "are of all seeds"),
        ({"max": 5}, {"search": {"design": "grid", "stopping": {}}}, "leave `search.stopping` out"),
        ({"max": 5}, {"victim": {"attack": None}}, "it takes an attack"),
        ([0, 1], {"race": {"min": 2}}, "none is left to race for"),
    ],
)
def test_a_race_that_cannot_be_run_is_refused(seeds: object, parts: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        study(seeds, **parts)
