"""Weights are tried in a process of its own, with the mistakes that this one would find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest
import torch
from safetensors.torch import save_file

from ubt.models.build import build_clip
from ubt.models.settings import ModelSettings
from ubt.models.trying import weights_tried

RANDOM = ModelSettings(name="tiny-rn")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "poisoned.safetensors"
    state = build_clip(RANDOM, seed=1, device=torch.device("cpu")).net.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("apart", [True, False])
def test_mistakes_are_the_same_in_either_process(weights: Path, apart: bool) -> None:
    broken = weights.with_name("broken.safetensors")
    broken.write_bytes(b"no weights")
    with weights_tried([(RANDOM, weights), (RANDOM, broken)], apart) as tried:
        (problem,) = tried()
    assert str(broken) in f"{problem.where} {problem.message} {problem.given}"


def test_where_there_can_be_no_other_process_this_one_tries_them(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/none")
    with weights_tried([(RANDOM, weights), (RANDOM, weights.with_name("missing.safetensors"))]) as tried:
        (problem,) = tried()
    assert "missing.safetensors" in f"{problem.where} {problem.given}"


def test_an_error_of_that_process_is_not_taken_for_a_lack_of_memory(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with weights_tried([(RANDOM, weights)]) as tried:
        (problem,) = tried()
    assert ("status 1" in problem.message, problem.advice) == (True, "its error is above")


def test_this_process_needs_no_torch(weights: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from ubt.models.settings import ModelSettings\n"
        "from ubt.models.trying import weights_tried\n"
        f"with weights_tried([(ModelSettings(name='tiny-rn'), Path({str(weights)!r}))]) as tried:\n"
        "    assert tried() == []\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_weights_there_is_no_process() -> None:
    with patch("subprocess.Popen") as started, weights_tried([]) as tried:
        assert tried() == []
    started.assert_not_called()


def test_leaving_earlier_ends_the_process(weights: Path) -> None:
    with pytest.raises(ZeroDivisionError), weights_tried([(RANDOM, weights)]):
        (child,) = (one for one in psutil.Process().children() if "ubt.models.trying" in one.cmdline())
        raise ZeroDivisionError
    assert not child.is_running()


def test_a_process_that_is_killed_is_a_mistake_with_what_to_do(weights: Path) -> None:
    with weights_tried([(RANDOM, weights)]) as tried:
        (child,) = (one for one in psutil.Process().children() if "ubt.models.trying" in one.cmdline())
        os.kill(child.pid, 9)
        (problem,) = tried()
    assert "status -9" in problem.message
    assert "memory" in problem.advice
