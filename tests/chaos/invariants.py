"""What must be so after every round."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scene import TRIALS, Scene, Sweep

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import State, TrialRecord, read_records

QUIET_SECONDS = 60.0
END_SECONDS = 8.0
"""A sweep that is told to end does so within this time."""
SLACK_SECONDS = 8.0
"""For a machine with more to do than it has cores."""
STACK = re.compile(r"Traceback \(most recent call last\)|Fatal Python error|\*\*\* SIG\w+ received|C  \[0x|StackTrace")

Rates = dict[str, object]


@dataclass(frozen=True)
class Undisturbed:
    """What came out where nothing went wrong."""

    rates: dict[str, dict[str, Rates]]
    """Search → configuration and seed → all rates of the trial."""
    checksums: dict[str, dict[str, str]]
    """Search → `stage/key` of each artifact → checksums of its payloads."""


def broken_by(sweep: Sweep, begun: bool) -> list[str]:
    """Return what is wrong with how one sweep behaved and ended; `begun` if it has a run folder to go on with."""
    wrong = []
    status, output, who = sweep.process.returncode, sweep.output, f"{sweep.name} after {sweep.hit_by or 'nothing'}"
    if status not in sweep.expected:
        wrong.append(f"{who}: status {status}, expected one of {sorted(sweep.expected)}: …{output[-600:]}")
    if found := STACK.search(output):
        wrong.append(f"{who}: a stack in the output: …{output[max(0, found.start() - 200) : found.end() + 1500]}")
    if sweep.quiet_seconds > QUIET_SECONDS + SLACK_SECONDS:
        wrong.append(f"{who}: {sweep.quiet_seconds:.0f} s without a line")
    if begun and status > 2 and "--resume" not in output:
        wrong.append(f"{who}: status {status} and no word of how to go on: …{output[-600:]}")
    if sweep.told and status != -9 and (seconds := sweep.ended - sweep.told) > END_SECONDS + SLACK_SECONDS:
        wrong.append(f"{who}: it took {seconds:.0f} s to end when told to")
    return wrong


def broken(scene: Scene, undisturbed: Undisturbed) -> list[str]:
    """Return what is wrong with what is on disk and in MLflow at the end of a round."""
    wrong = []
    names = sorted({sweep.name for sweep in scene.sweeps})
    for name in names:
        records = read_records(scene.run_folder(name) / "records")
        wrong += [f"{name}: {text}" for text in _of_records(records, undisturbed.rates[scene.where["search"]])]
        if scene.where["search"] == "optuna":
            wrong += [f"{name}: {text}" for text in _of_optuna(scene.run_folder(name) / "optuna.journal")]
    wrong += _of_tracking(scene, names, len(undisturbed.rates[scene.where["search"]]))
    wrong += _of_artifacts(scene, undisturbed.checksums[scene.where["search"]])
    return wrong


def rates_of(record: TrialRecord) -> Rates:
    """Return every rate of a trial, after every epoch too."""
    whole = record.model_dump(mode="json", include={"val", "test", "poisoned_val", "poisoned_test", "clean_val"})
    whole["epochs"] = [(stage, epoch.epoch, epoch.loss, str(epoch.val)) for stage, epoch in record.epochs]
    return whole


def identity(record: TrialRecord) -> str:
    """Return what a trial was, apart from its name."""
    return json.dumps([record.config, record.seed], sort_keys=True)


def checksums_of(manifest: ArtifactManifest) -> str:
    """Return the checksums of an artifact's payloads."""
    return " ".join(f"{name}:{payload.checksum}" for name, payload in sorted(manifest.payloads.items()))


def _of_records(records: list[TrialRecord], rates: dict[str, Rates]) -> list[str]:
    wrong = [f"{record.trial} is {record.state}: {record.reason}" for record in records if record.state != State.DONE]
    if len(records) != len(rates):  # those at an earlier epoch, which the front asks for, among them
        wrong.append(f"{len(records)} trials of {len(rates)}")
    wrong += [f"{n} trials of one configuration" for n in Counter(map(identity, records)).values() if n > 1]
    for record in records:
        if (expected := rates.get(identity(record))) is None:
            wrong.append(f"{record.trial} is none of the undisturbed run's: {record.changes}")
        elif json.dumps(expected) != json.dumps(rates_of(record)):
            wrong.append(f"{record.trial} has other rates than in the undisturbed run")
    return wrong


def _of_optuna(journal: Path) -> list[str]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    states = Counter(trial.state.name for trial in trials)
    wrong = [f"Optuna has {n} trials {state}" for state, n in states.items() if state in ("RUNNING", "WAITING")]
    # There may be more trials: it repeats itself.
    if (n := len({json.dumps(trial.params, sort_keys=True) for trial in trials})) != TRIALS // 2:
        wrong.append(f"Optuna has {n} configurations instead of {TRIALS // 2}")
    return wrong


def _of_tracking(scene: Scene, names: list[str], trials: int) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(scene.tracking_uri or f"sqlite:///{scene.runs}/mlflow.db")
    experiment = client.get_experiment_by_name(scene.name)
    if experiment is None:
        return ["MLflow has no such experiment"]
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    wrong = [f"MLflow has a run {run.info.status}" for run in runs if run.info.status != "FINISHED"]
    parents = {run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags}
    if len(parents) != len(names):
        wrong.append(f"MLflow has {len(parents)} parents for {len(names)} sweeps")
    children = Counter(run.data.tags["mlflow.parentRunId"] for run in runs if run.info.run_id not in parents)
    if sorted(children.values()) != [trials] * len(names):
        wrong.append(f"MLflow has {sorted(children.values())} children, expected {trials} for each of {len(names)}")
    return wrong


def _of_artifacts(scene: Scene, checksums: dict[str, str]) -> list[str]:
    wrong = []
    store = ArtifactStore(scene.seen_store)
    manifests = list(store.manifests())
    for manifest in manifests:
        name = f"{manifest.stage}/{manifest.key}"
        if name not in checksums:
            wrong.append(f"{name} is no artifact of the undisturbed run")
        elif checksums_of(manifest) != checksums[name]:
            wrong.append(f"{name} has other contents than in the undisturbed run")
    there = {f"{manifest.stage}/{manifest.key}" for manifest in manifests}
    if missing := checksums.keys() - there - scene.damaged:  # a stage that no trial needs any more is not done again
        wrong.append(f"{len(missing)} artifacts are missing: {sorted(missing)[:3]}")
    for name, contents in scene.published.items():
        if len(contents) > 1 and name not in scene.damaged:
            by = [_who(content) for content in sorted(contents, key=lambda content: contents[content])]
            wrong.append(f"{name} was computed {len(contents)} times: {', then '.join(by)}")
    return wrong


def _who(content: str) -> str:
    try:
        manifest = ArtifactManifest.model_validate_json(content)
    except ValueError:
        return "something damaged"
    return f"{manifest.computed_by} at {manifest.created_at}"
