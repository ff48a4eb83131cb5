"""The tiny victim of `tiny_victim.py`, trained once for all tests of the repository."""

from __future__ import annotations

import os

# Before torch is imported: one thread of a CPU gives the same bits everywhere. `CUDA_VISIBLE_DEVICES=0 pytest -m gpu`
# asks for the rest.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import gc
import importlib.util
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from tiny_victim import Bench, run_trial, tiny_trial

from ubt.artifacts.store import ArtifactStore
from ubt.common.memory import return_freed_memory
from ubt.trials.record import TrialRecord

if TYPE_CHECKING:
    from ubt.data.base import DataSet
    from ubt.engine.workspace import Workspace
    from ubt.models.clip import Clip

# A slow machine is no fault of a test; and what fails once must fail again for whoever looks into it.
settings.register_profile("ubt", deadline=None, derandomize=True, database=None)
settings.load_profile("ubt")


# A background job, `nohup` and some CIs ignore them, for this process and all that tests start.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


@dataclass(frozen=True)
class TinyRun:
    """One tiny trial, run to its end."""

    root: Path
    """Of its store; not to be written to."""
    records: list[TrialRecord]

    @property
    def record(self) -> TrialRecord:
        """The last one."""
        return self.records[-1]

    @property
    def artifacts(self) -> set[str]:
        """The keys of what is in the store."""
        return {path.name for path in self.root.glob("artifacts/*/*")}

    def copy(self, folder: Path) -> Path:
        """Return the root of a copy of the store, to do harm to."""
        return Path(shutil.copytree(self.root, folder / "store"))


_TINY_RUN = pytest.StashKey[tuple[TinyRun, set[str]]]()


def pytest_collection_modifyitems(items):
    """Files with slow tests go first, so that no process is left with one of them at the end while others idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where all that tests need was installed first, as in CI, a skipped test is a failed one.

    But a GPU, root's rights and namespaces cannot be installed.
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("UBT_TESTS_SKIP_NOTHING"):
        if item.get_closest_marker("gpu") or "need root" in str(report.longrepr) or "need name" in str(report.longrepr):
            return report
        report.outcome, report.longrepr = "failed", f"skipped, which UBT_TESTS_SKIP_NOTHING forbids: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _few_artifacts_in_memory() -> None:
    """Keep few: one process of tests has many workspaces, each of which may take a worker's share of the machine."""
    import ubt.engine.workspace as module

    module.memory_limit_bytes = lambda _threads: 256 << 20


@pytest.fixture(scope="module", autouse=True)
def _no_more_memory_than_needed() -> Iterator[None]:
    """Give back what a file's models took: one process of tests has hundreds of them, one after the other."""
    yield
    gc.collect()
    return_freed_memory()


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory):
    """Keep stores, digests and downloads of tests out of the user's folders."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("UBT_CACHE", "UBT_STORE"):
            environment.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(scope="session")
def tiny_run(request, tmp_path_factory) -> TinyRun:
    """The tiny trial as the real runner ran it (three seconds, once)."""
    root = tmp_path_factory.mktemp("tiny") / "store"
    run = TinyRun(root, run_trial(root))
    assert run.record.state == "DONE", run.record.reason
    request.session.stash[_TINY_RUN] = run, run.artifacts
    return run


@pytest.fixture(scope="module", autouse=True)
def _tiny_run_is_not_written_to(request) -> Iterator[None]:
    """Fail the file that adds to it or takes from it, not the next one, which would find something else there."""
    yield
    if found := request.session.stash.get(_TINY_RUN, None):
        run, artifacts = found
        assert run.artifacts == artifacts, "a test wrote to the store of `tiny_run`, instead of to a copy"


@pytest.fixture(scope="session")
def store(tiny_run) -> ArtifactStore:
    """The store with all artifacts of the tiny trial."""
    return ArtifactStore(tiny_run.root)


@pytest.fixture(scope="session")
def workspace(tiny_run, tmp_path_factory) -> Workspace:
    """A workspace on a copy of that store, which tests may add to."""
    import torch

    from ubt.engine.workspace import Workspace

    root = tiny_run.copy(tmp_path_factory.mktemp("workspace"))
    victim = tiny_trial().victim
    return Workspace(victim.data, victim.model, torch.device("cpu"), ArtifactStore(root), root / "images")


@pytest.fixture(scope="session")
def bench(workspace) -> Bench:
    """Where the stages of tiny trials are run one by one."""
    return Bench(workspace)


@pytest.fixture(scope="session")
def data(workspace) -> DataSet:
    """The tiny victim's data: 160 + 200 pairs and 48 + 48 labelled images of 32 × 32 pixels."""
    return workspace.data


@pytest.fixture
def clip(bench) -> Clip:
    """The tiny poisoned model, a copy for each test."""
    return bench.context("overfit").clip("poisoned")


@pytest.fixture
def untrained() -> Clip:
    """A `tiny-rn` with random weights."""
    import torch

    from ubt.models.build import build_clip
    from ubt.models.settings import ModelSettings

    return build_clip(ModelSettings(name="tiny-rn", random_weights=True), 0, torch.device("cpu"))


@pytest.fixture(scope="session")
def made_run():
    """The builder of run folders that nothing has computed, of any kind and size: `benchmarks/made_runs.py`."""
    path = Path(__file__).parents[1] / "benchmarks" / "made_runs.py"
    spec = importlib.util.spec_from_file_location("made_runs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["made_runs"] = module
    spec.loader.exec_module(module)
    return module.make_run
