"""Workers that start with a Ray of our own: how many, where they are, what they have, and that trials get them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray._private import accelerators, services

from sweeps.backends import connection
from sweeps.backends.beforehand import started_beforehand
from sweeps.study.config import Resources

TRIAL = """
import json, os, sys, time
import psutil
from sweeps.backends.beforehand import taken_by_tune
from sweeps.backends.connection import start_ray
from sweeps.backends.lifetime import stop_ray
from sweeps.study.config import Resources

def workers():
    children = psutil.Process().children(recursive=True)
    return sorted(child.pid for child in children if child.is_running() and "IDLE" in " ".join(child.cmdline()))

fitting = start_ray("local", Resources(concurrent_trials=2, cpus_per_trial=2), trials=TRIALS)
end = time.monotonic() + 200
while len(workers()) < min(TRIALS, fitting) and time.monotonic() < end:
    time.sleep(0.1)
time.sleep(5)  # in which no more may come
there = workers()
from ray import tune

class Trial(tune.Trainable):
    def setup(self, config):
        pass
    def step(self):
        ready = "ubt.engine.runner" in sys.modules and "sweeps.backends.trainable" in sys.modules
        return {"pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"], "ready": ready, "done": True}

with taken_by_tune():
    found = tune.run(Trial, resources_per_trial={"cpu": 2}, verbose=0, storage_path=sys.argv[1]).trials[0].last_result
print(json.dumps({"there": there, **{name: found[name] for name in ("pid", "threads", "ready")}}))
stop_ray()
"""


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1, 5])
def test_trials_get_workers_that_are_there_and_ready(tmp_path: Path, trials: int) -> None:
    words = [sys.executable, "-c", TRIAL.replace("TRIALS", str(trials)), str(tmp_path / "tune")]
    environment = {**os.environ, "OMP_NUM_THREADS": "7", "RAY_TMPDIR": "/tmp"}
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    assert len(found["there"]) == min(trials, 2)
    assert found["pid"] in found["there"]
    assert found["ready"]
    assert found["threads"] == "2", "those of a trial, not of this process"


@pytest.mark.parametrize(("visible", "fitting"), [(None, 8), (["3"], 1), ([], 0)])
def test_gpus_that_are_hidden_from_this_process_get_no_workers(
    monkeypatch: pytest.MonkeyPatch, visible: list[str] | None, fitting: int
) -> None:
    gpus = SimpleNamespace(
        get_current_node_num_accelerators=lambda: 8, get_current_process_visible_accelerator_ids=lambda: visible
    )
    monkeypatch.setattr(accelerators, "get_accelerator_manager_for_resource", lambda name: gpus)
    assert connection._fitting_here(Resources(gpus_per_trial=1), cpus=64) == fitting


def test_what_cannot_be_imported_is_left_to_the_trial() -> None:
    """Torch may raise anything where a library of the machine's is missing; workers would end as they start."""
    script = (
        "import sys\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            raise OSError('libcudart.so.13: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import sweeps.backends.imported\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'sweeps.backends.trainable' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


class TestStartedBeforehand:
    def test_leaves_environment_and_ray_as_they_were(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        before, start = dict(os.environ), services.start_ray_process
        with started_beforehand(3, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}):
            assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert dict(os.environ) == before
        assert services.start_ray_process is start

    def test_of_none_no_worker_imports_anything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_preload_python_modules", raising=False)
        with started_beforehand(0, {}):
            environment = dict(os.environ)
        assert environment["RAY_prestart_worker_first_driver"] == "0"
        assert "RAY_preload_python_modules" not in environment

    def test_says_how_many_to_the_process_that_starts_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        commands: list[list[str]] = []
        monkeypatch.setattr(services, "start_ray_process", lambda command, kind: commands.append(command))
        with started_beforehand(3, {}):
            services.start_ray_process(["raylet", "--num_prestart_python_workers=64", "--head"], "raylet")
        assert commands == [["raylet", "--num_prestart_python_workers=3", "--head"]]
