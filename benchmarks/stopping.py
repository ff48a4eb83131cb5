"""What stopping trials early saves, and what it costs in hypervolume: a study's search replayed over known outcomes.

    ubt sweep grid.yaml --address inline     # every configuration of the study's space, to the end: once, for hours
    python benchmarks/stopping.py demo runs/demogrid [--seeds 20] [--set search.stopping.keep=0.4 …]
    python benchmarks/stopping.py grid badnets-0        # a victim of `search/grid.csv.gz`: nothing needs to be computed

The session, the sampler and the rule are those of a sweep; in place of a worker each trial is answered by the record
of its configuration, up to the epoch with which it ends. Every judged epoch counts for the front, with and without
stopping. Seconds are those of the last epoch-wise stage, by epochs, and of the judgement at the end of a whole trial.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean, median

import numpy as np
from pydantic import JsonValue

from analysis.points.geometry import hypervolume
from sweeps.planning.trials import TrialPlanner
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.lagged import in_step
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.common.statistics import t_test
from ubt.config import parse_assignment, set_path
from ubt.config.dotted_paths import JsonObject
from ubt.trials.assignment import Assignment
from ubt.trials.record import StageRecord, State, TrialRecord, read_records
from ubt.trials.stopping import judged_epochs

JUDGED, FINAL = "unlearn", "evaluate"
Answer = Callable[[Assignment], TrialRecord]
"""What says how a trial ends."""
Made = Callable[[list[str]], StudyConfig]
"""What makes a study with some settings."""


@dataclass(frozen=True)
class Replayed:
    """What one search came to."""

    seconds: float
    hypervolume: float
    stopped: int
    epochs: int


def answered(assignment: Assignment, known: TrialRecord) -> TrialRecord:
    """Return the record of a trial that does what another of its configuration did, as far as its rule lets it."""
    stages = list(known.stages)
    at = next(place for place, stage in enumerate(stages) if stage.stage == JUDGED)
    epochs, found = stages[at].epochs, None
    if assignment.stopping:
        before = known.poisoned_val.ca if known.poisoned_val else None
        found = assignment.stopping.first_stop(judged_epochs(epochs, "lowest_asr"), len(epochs), before)
    about = {"state": State.DONE, "val": known.val}
    if found:
        part = found.epoch / len(epochs)
        cut = {"epochs": epochs[: found.epoch], "complete": False, "seconds": stages[at].seconds * part}
        stages = [*stages[:at], stages[at].model_copy(update=cut)]
        about = {"state": State.PRUNED, "pruned": found, "val": None}
    measured = {"stages": tuple(stages), "poisoned_val": known.poisoned_val}
    return assignment.record(State.RUNNING).model_copy(update={**about, **measured})


def session_in(folder: Path, study: StudyConfig) -> Session:
    """Return the session of a study that is not computed, with its files in a folder."""
    return Session(
        in_step(study.search.proposer(study, folder / "optuna.journal"), study),
        TrialPlanner(study, f"{folder}/store"),
        len(study.seeds),
        StageScheduler(),
        folder / "records",
        ca_floor=study.ca_floor,
    )


def replay(study: StudyConfig, answer: Answer, workers: int) -> Replayed:
    """Run a study's search over known outcomes, `workers` trials at a time."""
    study = study.with_search(study.search.for_workers(workers))
    ended: list[TrialRecord] = []
    with tempfile.TemporaryDirectory() as folder:
        session = session_in(Path(folder), study)
        running: list[Assignment] = []
        while True:
            while len(running) < workers and (assignment := session.next_assignment()) is not None:
                running.append(assignment)
            if not running:
                break
            assignment = running.pop(0)
            ended.append(answer(assignment))
            session.ended(assignment.trial, ended[-1])
    points = [(epoch.val.asr, epoch.val.ca) for one in ended for _, epoch in one.epochs if epoch.val]
    stages = [stage for record in ended for stage in record.stages if stage.stage in {JUDGED, FINAL}]
    return Replayed(
        sum(stage.seconds for stage in stages),
        hypervolume(np.array(points, dtype=np.float64)),
        sum(record.state is State.PRUNED for record in ended),
        sum(len(stage.epochs) for stage in stages),
    )


def identity(config: Mapping[str, JsonValue]) -> str:
    """Return a text that is equal for equal defenses, whichever base they are changes to."""
    return json.dumps(config["defense"], sort_keys=True)


def whole(records: Iterable[TrialRecord], most: float) -> dict[str, TrialRecord]:
    """Return the records of configurations that ran to their end, each epoch as if computed alone.

    A stage takes at most so many times the median of its name.
    """
    done = [one for one in records if one.state is State.DONE]
    named: defaultdict[str, list[float]] = defaultdict(list)
    for stage in (stage for one in done for stage in one.stages):
        named[stage.stage].append(stage.seconds)
    longest = {name: most * median(seconds) for name, seconds in named.items()}

    def alone(stage: StageRecord) -> StageRecord:
        return stage.model_copy(update={"reused": False, "seconds": min(stage.seconds, longest[stage.stage])})

    return {identity(one.config): one.model_copy(update={"stages": tuple(map(alone, one.stages))}) for one in done}


def interval(values: list[float], digits: int) -> tuple[float, ...]:
    """Return mean and ends of the 95 % t interval over sampler seeds; the mean alone if they are all equal."""
    found = t_test(values)[:3] if len(set(values)) > 1 else (fmean(values),)
    return tuple(round(value, digits) for value in found)


def of_run(study: str, run: Path, most: float) -> tuple[Made, Answer]:
    """Return what makes a study with stopping, and what answers its trials by records of a run of its whole space."""
    outcomes = whole(read_records(run / "records"), most)

    def made(settings: list[str]) -> StudyConfig:
        return load_study(study, ["search.stopping={}", "tracking.enabled=false", *settings])

    return made, lambda assignment: answered(assignment, outcomes[identity(assignment.config)])


def of_grid(victim: str) -> tuple[Made, Answer]:
    """Return the same for TPE's search of 24 configurations, beside the base, of the grid's outcomes of one victim."""
    sys.path.append(str(Path(__file__).parent / "search"))
    from outcomes import read, space_of  # noqa: PLC0415 — beside the table that it reads
    from replay import record_of  # noqa: PLC0415

    known = next(one for one in read("grid") if f"{one.attack}-{one.seed}" == victim)
    search: JsonObject = {"design": "optuna", "n_trials": 25, "space": space_of("grid"), "stopping": {}}
    parts = known.study.model_dump(mode="json", exclude={"search"})

    def made(settings: list[str]) -> StudyConfig:
        tree: JsonObject = {**parts, "search": search}
        for path, value in map(parse_assignment, settings):
            tree = set_path(tree, path, value, StudyConfig)
        return StudyConfig.model_validate(tree)

    return made, lambda assignment: record_of(assignment, known)


def main() -> None:
    """Replay a study with several sampler seeds, with and without stopping, and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a study, or `grid`")
    parser.add_argument(
        "outcomes", help="folder of a run with every configuration of the study's space; or ATTACK-SEED"
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--at-most",
        type=float,
        default=inf,
        metavar="N",
        help="of a run that was held up now and then: no stage takes more than N times the median of its name",
    )
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    name, of = arguments.study, arguments.outcomes
    made, answer = of_grid(of) if name == "grid" else of_run(name, Path(of), arguments.at_most)
    pairs = []
    for seed in range(arguments.seeds):
        stopped = made([*arguments.settings, f"search.sampler_seed={seed}"])
        without = stopped.with_search(stopped.search.model_copy(update={"stopping": None}))
        pairs.append(tuple(replay(study, answer, arguments.workers) for study in (without, stopped)))
    saved = [1 - stopped.seconds / without.seconds for without, stopped in pairs]
    lost = [without.hypervolume - stopped.hypervolume for without, stopped in pairs]
    print(
        json.dumps(
            {
                "study": name,
                "outcomes": of,
                "settings": arguments.settings,
                "seeds": arguments.seeds,
                "saved_share_of_seconds": interval(saved, 3),
                "least": round(min(saved), 3),
                "hypervolume": round(fmean(without.hypervolume for without, _ in pairs), 4),
                "hypervolume_lost": interval(lost, 5),
                "most_lost": round(max(lost), 5),
                "stopped": fmean(stopped.stopped for _, stopped in pairs),
                "epochs_left_out": round(1 - fmean(s.epochs for _, s in pairs) / fmean(w.epochs for w, _ in pairs), 3),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
