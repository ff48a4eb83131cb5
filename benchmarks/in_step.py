"""What it costs that configurations begin in step, so that the same trials are stopped on any number of workers.

    python benchmarks/in_step.py demo runs/demogrid [--workers 1 2 3 8 16]

A design of a study's space is run in virtual time over known outcomes (see `stopping.py`), with the session and the
stage scheduler of a sweep, each stage as long as it took. Once with a rule that stops no trial, once without one: the
difference is what waiting costs. Then with the default rule, to see that the same trials end at the same epochs.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
from pathlib import Path

from stopping import answered, identity, session_in, whole

from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.trials.record import State, TrialRecord, read_records

NEVER = "{keep: 0.9999, ca_floor: null}"
"""Settings of a rule that stops no trial."""


def run(study: StudyConfig, outcomes: dict[str, TrialRecord], workers: int) -> tuple[float, dict[str, TrialRecord]]:
    """Return how long a study takes on so many workers, in virtual seconds, and its records."""
    study = study.with_search(study.search.for_workers(workers))
    ended: dict[str, TrialRecord] = {}
    with tempfile.TemporaryDirectory() as folder:
        session = session_in(Path(folder), study)
        now, free, done = 0.0, workers, set[str]()
        events: list[tuple[float, str, int]] = []
        """When a trial has done its next stage, and which one that is."""
        running: dict[str, TrialRecord] = {}

        def begin(trial: str, at: int) -> None:
            stage = running[trial].stages[at]
            heapq.heappush(events, (now + (0.0 if stage.key in done else stage.seconds), trial, at))

        while True:
            while free and (assignment := session.next_assignment()) is not None:
                record = answered(assignment, outcomes[identity(assignment.config)])
                keyed = zip(record.stages, assignment.keys, strict=False)
                stages = tuple(stage.model_copy(update={"key": key}) for stage, key in keyed)
                running[assignment.trial] = record.model_copy(update={"stages": stages})
                free -= 1
                begin(assignment.trial, 0)
            if not events:
                return now, ended
            now, trial, at = heapq.heappop(events)
            record = running[trial]
            if record.stages[at].complete:
                done.add(record.stages[at].key)
            if at + 1 < len(record.stages):
                so_far = {"state": State.RUNNING, "val": None, "pruned": None, "stages": record.stages[: at + 1]}
                session.updated(record.model_copy(update=so_far))
                begin(trial, at + 1)
                continue
            free += 1
            ended[trial] = record
            session.ended(trial, record)


def ends(records: dict[str, TrialRecord]) -> list[tuple[str, int | None]]:
    """Return at which epoch each trial was stopped, if it was."""
    return sorted((name, one.pruned.epoch if one.pruned else None) for name, one in records.items())


def main() -> None:
    """Print a JSON line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("grid", type=Path, help="folder of a run with every configuration of the study's space")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 8, 16])
    parser.add_argument("--lag", type=int, help="of the comparison of stops; 16 if not given", default=16)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    outcomes = whole(read_records(arguments.grid / "records"))
    common = [*arguments.settings, "tracking.enabled=false"]
    space = load_study(arguments.study, common).search.as_json()["space"]

    def designed(stopping: str) -> StudyConfig:
        search = f"search={{design: grid, stopping: {stopping}, space: {json.dumps(space)}}}"
        return load_study(arguments.study, [*common, search])

    first: list[tuple[str, int | None]] | None = None
    for workers in arguments.workers:
        free, _ = run(designed("null"), outcomes, workers)
        waits, _ = run(designed(NEVER), outcomes, workers)
        wall, records = run(designed(f"{{lag: {arguments.lag}}}"), outcomes, workers)
        found = ends(records)
        first = first or found
        row = {"workers": workers, "seconds": round(free, 1), "in_step": round(waits, 1)}
        row |= {"waiting": round(waits / free - 1, 4), "stopped_seconds": round(wall, 1)}
        row |= {"stopped": sum(epoch is not None for _, epoch in found), "same_ends": found == first}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
