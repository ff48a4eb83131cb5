"""`deploy/slurm/sweep.sbatch` as users submit it, on a real Slurm with three nodes. Minutes: `make clusters`."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from shutil import rmtree

import held
import pytest
import yaml
from held import Holds
from scene import STUDY
from slurm_cluster import Job, Slurm, slurm, why_not

from ubt.trials.record import State, TrialRecord, read_records

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm" / "sweep.sbatch"
SPACE = {"defense.overfit_epochs": [1, 2], "defense.token_threshold": [0.02, 0.05, 0.1]}
TRIALS = 6
ALL_DONE = ("COMPLETED", 0)
SMALL = ("--cpus-per-task=1", "--mem=1000")

pytestmark = [pytest.mark.clusters, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="ubt-slurm-", dir="/tmp"))
    try:
        with slurm(folder) as made:
            yield made
    finally:
        rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder that jobs are submitted from, with a study and a `ubt` whose nodes only pretend to have GPUs."""
    study = {**STUDY, "name": "small", "search": {"design": "grid", "space": SPACE}, "seeds": [0]}
    study |= {"resources": {}, "objectives": {"epochs": "last"}}  # whose trials are counted
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "holds").mkdir()
    (programs / "ubt").write_text(f'#!/bin/bash\nexec {sys.executable} {held.__file__} {tmp_path}/holds "$@"\n')
    (programs / "ubt").chmod(0o755)
    return tmp_path


def submit(cluster: Slurm, place: Path, *words: str, options: Sequence[str] = SMALL) -> Job:
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    variables = {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "4"}
    variables["RAY_worker_niceness"] = "0"  # beside other work Ray's 15 may mean minutes for the start of a worker
    gone = {"UBT_STORE": "", "UBT_CACHE": "", "SLURM_TMPDIR": ""}
    return cluster.submit(place, *options, str(SCRIPT), *words, **variables, **gone)


STAND_IN = """#!/bin/bash
trap 'echo it ends in order; sleep 1; exit 143' TERM
echo "ubt $*, restart ${SLURM_RESTART_COUNT:-0}, GPUs $CUDA_VISIBLE_DEVICES"
[[ ${SLURM_RESTART_COUNT:-0} -lt 2 ]] || exit 0
while :; do sleep 0.2; done
"""


def test_a_job_goes_back_into_the_queue_before_its_time_is_over_as_often_as_it_takes(
    cluster: Slurm, place: Path
) -> None:
    (place / ".venv" / "bin" / "ubt").write_text(STAND_IN)
    job = submit(cluster, place, "demo", options=(*SMALL, "--gpus-per-node=2", "--time=60"))
    for restarts in (1, 2):
        job.wait_until(lambda restarts=restarts: job.log.count("ubt sweep demo --resume=auto") == restarts)
        job.let_time_be_over()
    assert job.end() == ALL_DONE, job.log
    assert job.restarts == job.log.count("it ends in order") == job.log.count("back into the queue") == 2
    assert "restart 2, GPUs 0,1" in job.log
    left_over(cluster)


def test_scancel_of_an_array_ends_each_of_its_sweeps_in_order(cluster: Slurm, place: Path) -> None:
    (place / ".venv" / "bin" / "ubt").write_text(STAND_IN)
    (place / "studies.txt").write_text("demo --name first\npaper --name second\n")
    array = submit(cluster, place, "studies.txt", "--set", "x=1", options=(*SMALL, "--array=1-2"))
    array.wait_until(lambda: array.log.count("ubt sweep") == 2)
    cluster.call("scancel", array.number)
    jobs = [Job(cluster, f"{array.number}_{task}", place) for task in (1, 2)]
    assert [job.end() for job in jobs] == [("CANCELLED", 143)] * 2
    array.wait_until(lambda: array.log.count("it ends in order") == 2)
    assert "ubt sweep demo --name first --set x=1 --resume=auto" in array.log
    assert "ubt sweep paper --name second --set x=1 --resume=auto" in array.log
    assert "back into the queue" not in array.log
    left_over(cluster)


def records(place: Path, run: str = "small") -> list[TrialRecord]:
    return read_records(place / "runs" / run / "records")


def computed(found: Sequence[TrialRecord]) -> list[str]:
    """Return the key of each stage that was computed to its end, as often as it was."""
    return [stage.key for record in found for stage in record.stages if not stage.reused and stage.complete]


def processes_of_ray(cluster: Slurm) -> list[str]:
    """Return what runs of Ray on the nodes."""
    found = []
    for node in cluster.nodes:
        shown = node.run("ps", "-eo", "args")
        found += [
            f"{node.name}: {line[:100]}"
            for line in shown.splitlines()
            if re.search(r"/raylet/raylet|gcs_server|ray::", line) and "<defunct>" not in line
        ]
    return found


def mlflow_runs(place: Path) -> Counter[str]:
    with closing(sqlite3.connect(place / "runs" / "mlflow.db")) as database:
        return Counter(name.split()[0] for (name,) in database.execute("select name from runs"))


def manifests(place: Path) -> dict[Path, str]:
    """Return when each artifact in the store was made: its file's time says when it was last used."""
    return {path: json.loads(path.read_text())["created_at"] for path in place.glob("store/artifacts/*/*/meta.json")}


def check_whole(cluster: Slurm, place: Path) -> None:
    """Check that a run has all it should, once, and that nothing of it is left on the nodes."""
    found = records(place)
    assert [record.state for record in found] == [State.DONE] * TRIALS
    keys = computed(found)
    assert len(set(keys)) == len(keys)
    assert (place / "runs" / "small" / "report" / "index.html").is_file()
    assert mlflow_runs(place) == Counter(["small", *(record.trial for record in found)])
    left_over(cluster)


def left_over(cluster: Slurm) -> None:
    deadline = time.monotonic() + 30
    while processes_of_ray(cluster) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_of_ray(cluster) == []
    assert list(Path("/tmp").glob("ubt-job-*")) == []


def test_a_sweep_on_one_node_is_done(cluster: Slurm, place: Path) -> None:
    job = submit(cluster, place, "small.yaml", options=("--cpus-per-task=2", "--mem=2000"))
    assert job.end() == ALL_DONE, job.log
    check_whole(cluster, place)


def test_a_sweep_on_three_nodes_has_a_trial_on_each_gpu(cluster: Slurm, place: Path) -> None:
    holds = Holds(place / "holds", "unlearn", *(f"t{number:04d}" for number in range(TRIALS)))
    options = (*SMALL, "--nodes=3", "--gpus-per-node=1")
    job = submit(cluster, place, "small.yaml", "--set", "resources.gpus_per_trial=1", options=options)
    job.wait_until(lambda: len(at("unlearn", place)) == 3)
    there = {record.attempts[-1].node.split()[0] for record in at("unlearn", place)}
    holds.end()
    assert job.end() == ALL_DONE, job.log
    assert there == {node.name for node in cluster.nodes}
    check_whole(cluster, place)


def at(stage: str, place: Path) -> list[TrialRecord]:
    return [record for record in records(place) if stage in [reached.stage for reached in record.stages]]


@pytest.mark.timeout(1200)
def test_a_sweep_whose_time_is_over_twice_goes_on_from_the_queue_and_computes_nothing_twice(
    cluster: Slurm, place: Path
) -> None:
    holds = Holds(place / "holds", "unlearn", f"t{TRIALS - 1:04d}")
    job = submit(cluster, place, "small.yaml", options=(*SMALL, "--nodes=3", "--time=60"))
    published = []
    for trials in (1, 2):
        job.wait_until(lambda trials=trials: sum(record.state is State.DONE for record in records(place)) >= trials)
        job.let_time_be_over()
        published.append(manifests(place))
    holds.end()
    assert job.end() == ALL_DONE, job.log
    assert published[0]
    now = manifests(place)
    assert {path: when for path, when in now.items() if path in published[1]} == {**published[0], **published[1]}
    assert job.restarts == job.log.count("the time is over: back into the queue") == 2
    check_whole(cluster, place)


def test_scancel_ends_a_sweep_in_order_and_the_same_command_goes_on(cluster: Slurm, place: Path) -> None:
    holds = Holds(place / "holds", "unlearn", *(f"t{number:04d}" for number in range(TRIALS)))
    job = submit(cluster, place, "small.yaml", options=(*SMALL, "--nodes=2"))
    job.wait_until(lambda: bool(at("unlearn", place)))
    cluster.call("scancel", job.number)
    holds.end()
    assert job.end()[0] == "CANCELLED"
    job.wait_until(lambda: job.shown("JobState") == "CANCELLED" and not processes_of_ray(cluster), 60)
    assert {record.state for record in records(place)} <= {State.DONE, State.INTERRUPTED}
    assert State.INTERRUPTED in {record.state for record in records(place)}
    assert "Go on with:" in job.log
    before = manifests(place)
    again = submit(cluster, place, "small.yaml")
    assert again.end() == ALL_DONE, again.log
    assert {path: when for path, when in manifests(place).items() if path in before} == before
    check_whole(cluster, place)


def test_an_array_of_sweeps_shares_one_store_and_its_nodes(cluster: Slurm, place: Path) -> None:
    (place / "studies.txt").write_text("small.yaml --name first\nsmall.yaml --name second\n")
    array = submit(cluster, place, "studies.txt", options=(*SMALL, "--array=1-2", "--nodes=2-2"))
    jobs = [Job(cluster, f"{array.number}_{task}", place) for task in (1, 2)]
    assert [job.end() for job in jobs] == [ALL_DONE, ALL_DONE], array.log
    keys = [key for run in ("first", "second") for key in computed(records(place, run))]
    assert keys
    assert len(set(keys)) == len(keys)
    left_over(cluster)
