"""What `import sweeps` offers to programs: a few functions, whose examples are true."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sweeps
from sweeps.study.loading import load_study
from ubt.trials.record import read_records


@pytest.mark.parametrize("name", sweeps.__all__)
def test_every_public_function_has_an_example_that_is_true(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UBT_STORE", str(tmp_path))
    function: Callable[..., object] = getattr(sweeps, name)
    names = {public: getattr(sweeps, public) for public in sweeps.__all__}
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=names)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.slow
def test_a_study_is_swept_into_a_folder_and_gone_on_with(tmp_path: Path) -> None:
    study = load_study("smoke", [f"store={tmp_path}/store", "tracking.enabled=false"])
    end = sweeps.sweep(study, tmp_path / "runs", address="inline")
    assert end.all_done
    assert end.run.path == tmp_path / "runs" / "smoke"
    assert len(read_records(end.run.records)) == sweeps.plan_study(study).trials
    again = sweeps.sweep(study, tmp_path / "runs", address="inline", resume=True)
    assert (again.run.path, again.all_done) == (end.run.path, True)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has export, launch, load_study, plan_study, replay, sweep"):
        sweeps.swep  # noqa: B018


def test_importing_it_loads_nothing_of_what_it_needs_later() -> None:
    code = "import sys, sweeps; print(*sorted({'pandas', 'pydantic', 'torch', 'ray', 'optuna'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not loaded.split()
