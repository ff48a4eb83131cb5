"""What `sweep.sbatch` does around `ubt sweep`, with programs in place of `ubt` and Slurm that note how they are called.

On a real Slurm, with the real `ubt`: `tests/clusters/test_slurm.py`.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "sweep.sbatch"
PATIENCE_SECONDS = 60
UBT = """#!/bin/bash
while [[ -n ${WAITS_FOR:-} && ! -e $SEEN/$WAITS_FOR ]]; do sleep 0.02; done
trap 'echo "$ON_TERM" >>"$SEEN/term"; exit "$ON_TERM"' TERM
printf '%s\\n' "$@" >"$SEEN/words"
stat -c '%a %U' "/tmp/ubt-job-$SLURM_JOB_ID-0" >"$SEEN/folder"
env -0 >"$SEEN/environment.unfinished" && mv "$SEEN/environment.unfinished" "$SEEN/environment"
[[ -z ${ENDS_WITH:-} ]] || exit "$ENDS_WITH"
while :; do sleep 0.02; done
"""
SCONTROL = """#!/bin/bash
echo "$@" >>"$SEEN/scontrol"
exit "${REFUSES:-0}"
"""

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do echo "$1" >>"$SEEN/srun"; shift; done
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
	# Noted by the task itself, once it leads a group: only then does a signal to that group find it.
	SLURM_NODEID=$node SLURMD_NODENAME=n$((node + 1)) setsid bash -c 'echo $$ >>"$SEEN/tasks"; exec "$@"' bash "$@" &
done
wait
"""
SCANCEL = """#!/bin/bash
echo "$@" >>"$SEEN/scancel"
while read -r task; do kill -TERM -- "-$task"; done <"$SEEN/tasks"
"""
RAY = """#!/bin/bash
echo "$@" >>"$SEEN/ray-$SLURM_NODEID"
echo "$UBT_CACHE" >>"$SEEN/cache-$SLURM_NODEID"
[[ $* == *--head* || $(wc -l <"$SEEN/ray-$SLURM_NODEID") -gt 1 ]] || exit 1
[[ $* =~ --port=([0-9]+) ]] && exec python -c "
import socket, time
server = socket.create_server(('', ${BASH_REMATCH[1]}))
time.sleep(600)"
echo joined >"$SEEN/joined"
exec sleep 600
"""


@dataclass
class Job:
    """A run of the script."""

    process: subprocess.Popen[str]
    seen: Path
    folder: Path
    """Its own folder on the node."""

    def wait_for_ubt(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (self.seen / "environment").exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def words(self) -> list[str]:
        return (self.seen / "words").read_text().splitlines()

    @property
    def environment(self) -> dict[str, str]:
        parts = (self.seen / "environment").read_text().split("\0")
        return dict(part.split("=", 1) for part in parts if part)

    @property
    def requeued(self) -> list[str]:
        noted = self.seen / "scontrol"
        return noted.read_text().splitlines() if noted.exists() else []


Submit = Callable[..., Job]


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"ubt": UBT, "scontrol": SCONTROL, "srun": SRUN, "scancel": SCANCEL, "ray": RAY}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)

    def start(*words: str, **variables: str) -> Job:
        seen = tmp_path / secrets.token_hex(4)
        seen.mkdir()
        job = f"test{secrets.token_hex(4)}"
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "SEEN": str(seen),
            "ON_TERM": "143",
            "SLURM_JOB_ID": job,
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NODEID": "0",
            "SLURMD_NODENAME": "n1",
            "SLURM_CPUS_ON_NODE": "6",
            **variables,
        }
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return Job(process, seen, Path(f"/tmp/ubt-job-{job}-0"))

    return start


def ended(job: Job, *signals: int) -> tuple[int, str]:
    """Send signals once `ubt` runs; return the status and what was printed."""
    for number in signals:
        job.wait_for_ubt()
        job.process.send_signal(number)
    printed, _ = job.process.communicate(timeout=PATIENCE_SECONDS)
    return job.process.returncode, printed


def test_a_sweep_goes_on_or_begins_with_what_was_given(submit: Submit) -> None:
    job = submit("demo", "--set", "search.n_trials=3", ENDS_WITH="0")
    assert ended(job) == (0, "")
    begun = ["sweep", "demo", "--set", "search.n_trials=3"]
    assert job.words == [*begun, "--resume=auto", "--grace", "25", "--address", "local"]
    assert job.requeued == []


def test_each_job_has_a_token_and_a_folder_of_its_own_that_go_with_it(submit: Submit) -> None:
    jobs = [submit("demo", ENDS_WITH="0") for _ in range(2)]
    assert [ended(job)[0] for job in jobs] == [0, 0]
    tokens = {job.environment["RAY_AUTH_TOKEN"] for job in jobs}
    assert [len(token) for token in tokens] == [64, 64]
    assert jobs[0].environment["RAY_AUTH_MODE"] == "token"
    assert (jobs[0].seen / "folder").read_text().startswith("700 ")
    assert jobs[0].environment["UBT_CACHE"] == str(jobs[0].folder)
    assert not jobs[0].folder.exists()


def test_a_folder_that_somebody_else_has_laid_there_is_not_used(submit: Submit, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").touch()
    link = Path("/tmp/ubt-job-laid-0")
    link.symlink_to(theirs)
    try:
        status, printed = ended(submit("demo", SLURM_JOB_ID="laid"))
    finally:
        link.unlink()
    assert (status, "/tmp/ubt-job-laid-0 cannot be made, or is another user's" in printed) == (3, True)
    assert (theirs / "file").exists()


def test_the_cache_lies_on_the_node_and_the_store_where_all_see_it(submit: Submit, tmp_path: Path) -> None:
    job = submit("demo", ENDS_WITH="0", SLURM_TMPDIR="/localscratch/job-7")
    ended(job)
    assert job.environment["UBT_CACHE"] == "/localscratch/job-7"
    assert job.environment["UBT_STORE"] == str(tmp_path / "store")
    given = submit("demo", ENDS_WITH="0", SLURM_TMPDIR="/a", UBT_CACHE="/b", UBT_STORE="s3://bucket/store")
    ended(given)
    assert (given.environment["UBT_CACHE"], given.environment["UBT_STORE"]) == ("/b", "s3://bucket/store")


def test_gpus_and_cpus_are_those_of_the_job(submit: Submit) -> None:
    without = submit("demo", ENDS_WITH="0", RAY_ADDRESS="10.0.0.1:6379")
    some = submit("demo", ENDS_WITH="0", SLURM_GPUS_ON_NODE="2", CUDA_VISIBLE_DEVICES="1,3")
    assert [ended(job)[0] for job in (without, some)] == [0, 0]
    assert without.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert some.environment["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert without.environment["LOKY_MAX_CPU_COUNT"] == "6"
    assert "RAY_ADDRESS" not in without.environment


def test_when_the_time_is_over_the_sweep_ends_in_order_and_the_job_goes_back_into_the_queue(submit: Submit) -> None:
    job = submit("demo")
    status, printed = ended(job, signal.SIGUSR1)
    assert (job.seen / "term").read_text() == "143\n"
    assert job.requeued == [f"requeue {job.environment['SLURM_JOB_ID']}"]
    assert (status, "back into the queue" in printed) == (0, True)
    assert not job.folder.exists()


def test_scancel_ends_the_sweep_in_order_and_for_good(submit: Submit) -> None:
    job = submit("demo")
    assert ended(job, signal.SIGTERM)[0] == 143
    assert (job.seen / "term").read_text() == "143\n"
    assert job.requeued == []


@pytest.mark.parametrize("status", ["0", "1", "2"])
def test_a_sweep_that_has_come_to_its_end_meanwhile_is_not_started_again(submit: Submit, status: str) -> None:
    job = submit("demo", ON_TERM=status)
    assert ended(job, signal.SIGUSR1)[0] == int(status)
    assert job.requeued == []


@pytest.mark.parametrize("status", ["1", "2", "3", "143"])
def test_what_ends_by_itself_is_not_started_again(submit: Submit, status: str) -> None:
    job = submit("demo", ENDS_WITH=status)
    assert ended(job)[0] == int(status)
    assert job.requeued == []


def test_a_job_that_never_comes_to_its_end_does_not_go_round_for_ever(submit: Submit) -> None:
    job = submit("demo", SLURM_RESTART_COUNT="5", UBT_MAX_REQUEUES="5")
    status, printed = ended(job, signal.SIGUSR1)
    assert (status, "UBT_MAX_REQUEUES" in printed) == (143, True)
    assert job.requeued == []


def test_where_slurm_refuses_the_end_is_no_success(submit: Submit) -> None:
    status, printed = ended(submit("demo", REFUSES="1"), signal.SIGUSR1)
    assert (status, "The same `sbatch` goes on" in printed) == (143, True)


def test_a_task_of_an_array_has_its_line_and_what_is_for_all(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "studies.txt").write_text("demo\npaper --name 'two words' --set \"search.space={a.b: [1, 2]}\"\n")
    job = submit("studies.txt", "--out", "all", SLURM_ARRAY_TASK_ID="2", ENDS_WITH="0")
    assert ended(job)[0] == 0
    line = ["sweep", "paper", "--name", "two words", "--set", "search.space={a.b: [1, 2]}", "--out", "all"]
    assert job.words[: len(line)] == line


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        ([], {}, "name a study, e.g. sbatch sweep.sbatch demo"),
        (["studies.txt"], {"SLURM_ARRAY_TASK_ID": "3"}, "studies.txt has no line 3"),
        (["demo"], {"PATH": "/usr/bin:/bin"}, "there is no `ubt`"),
    ],
)
def test_a_mistake_is_said_before_anything_starts(
    submit: Submit, tmp_path: Path, words: list[str], variables: dict[str, str], message: str
) -> None:
    (tmp_path / "studies.txt").write_text("demo\npaper\n")
    job = submit(*words, **variables)
    status, printed = ended(job)
    assert (status, message in printed) == (2, True), printed
    assert not (job.seen / "words").exists()


def test_on_many_nodes_the_first_is_the_head_and_one_that_fails_to_start_is_started_again(submit: Submit) -> None:
    nodes = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4", "WAITS_FOR": "joined"}
    job = submit("demo", ENDS_WITH="0", **nodes)
    status, printed = ended(job)
    assert status == 0, printed
    (head,) = (job.seen / "ray-0").read_text().splitlines()
    failed, joined = (job.seen / "ray-1").read_text().splitlines()
    assert failed == joined
    host, port = job.words[-1].rsplit(":", 1)
    assert f"start --head --node-ip-address={host} --port={port} " in head
    assert joined.startswith(f"start --address={host}:{port} --block ")
    assert "--num-cpus=6 --num-gpus=4" in head
    assert "--num-cpus=6 --num-gpus=4" in joined
    assert "n2: Ray has ended here" in printed
    assert (job.seen / "scancel").read_text() == f"--signal=TERM {job.environment['SLURM_JOB_ID']}.0\n"
    caches = [(job.seen / f"cache-{node}").read_text().splitlines()[0] for node in (0, 1)]
    assert caches == [str(job.folder), str(job.folder)[:-1] + "1"]
    assert not any(Path(cache).exists() for cache in caches)


def test_when_the_time_is_over_before_the_nodes_are_there_the_job_goes_back_into_the_queue(submit: Submit) -> None:
    job = submit("demo", SLURM_JOB_NUM_NODES="2", SLURMD_NODENAME="n1", WAITS_FOR="never")
    deadline = time.monotonic() + PATIENCE_SECONDS
    tasks = job.seen / "tasks"
    while not tasks.exists() or len(tasks.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job.process.send_signal(signal.SIGUSR1)
    status, printed = ended(job)
    assert (status, len(job.requeued)) == (0, 1), printed
    assert not list(job.folder.parent.glob(f"{job.folder.name[:-1]}*"))


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    subprocess.run(["shellcheck", "--severity=warning", str(SCRIPT)], check=True)


def test_nothing_in_it_stops_the_ray_of_another_job() -> None:
    code = "\n".join(line for line in SCRIPT.read_text().splitlines() if not line.lstrip().startswith("#"))
    assert "ray start" in code
    assert "ray stop" not in code
    assert "symmetric-run" not in code
