"""Two locks for two CUDAs: each complete, for its own CUDA alone, otherwise alike, and without an address."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = {13: "requirements.lock", 12: "requirements-cuda12.lock"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ON_GPUS = re.compile(r"nvidia-|cuda-|torch(vision)?$|triton$")


@cache
def pinned(cuda: int) -> dict[str, str]:
    """Return the version of each distribution in a lock."""
    text = (ROOT / LOCKS[cuda]).read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", text, re.M)}


@pytest.mark.parametrize("cuda", LOCKS)
def test_a_lock_has_everything_that_the_project_asks_for_in_a_version_that_it_allows(cuda: int) -> None:
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    asked += [one for extra in ("s3", "postgres", "transformers") for one in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, asked):
        version = pinned(cuda)[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), (requirement, version)


@pytest.mark.parametrize(("cuda", "other"), [(13, "cu12"), (12, "cu13")])
def test_a_lock_has_the_libraries_of_its_own_cuda_alone(cuda: int, other: str) -> None:
    libraries = [name for name in pinned(cuda) if name.startswith("nvidia-")]
    assert f"nvidia-cudnn-cu{cuda}" in libraries
    assert [name for name in libraries if name.endswith(other)] == []
    runtime = next(version for name, version in pinned(cuda).items() if name.startswith("nvidia-cuda-runtime"))
    assert runtime.startswith(f"{cuda}.")


def test_the_locks_differ_in_what_is_built_for_gpus_alone() -> None:
    differ = {name for name in pinned(12).keys() | pinned(13).keys() if pinned(12).get(name) != pinned(13).get(name)}
    assert [name for name in sorted(differ) if not ON_GPUS.match(name)] == []
    assert pinned(12)["torch"] != pinned(13)["torch"]


@pytest.mark.parametrize("cuda", LOCKS)
def test_a_lock_names_no_address_and_has_a_hash_for_everything(cuda: int) -> None:
    text = (ROOT / LOCKS[cuda]).read_text(encoding="utf-8")
    assert "://" not in text
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)[1:]
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize(("words", "lock"), [((), LOCKS[13]), (("CUDA=13",), LOCKS[13]), (("CUDA=12",), LOCKS[12])])
def test_make_install_takes_the_lock_of_the_cuda_that_was_asked_for(
    words: tuple[str, ...], lock: str, tmp_path: Path
) -> None:
    assert f"--require-hashes -r {lock}" in make("install", f"VENV={tmp_path}", *words).stdout


def test_make_install_refuses_a_cuda_that_there_is_no_lock_for() -> None:
    refused = make("install", "CUDA=11")
    assert refused.returncode
    assert "CUDA must be 13 or 12, not 11" in refused.stderr


def test_an_environment_for_another_cuda_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".installed-cuda13").touch()
    assert "--clear" in make("install", "CUDA=12", f"VENV={tmp_path}").stdout
    assert "--clear" not in make("--always-make", "install", f"VENV={tmp_path}").stdout


def make(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--dry-run", f"PYTHON={sys.executable}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
