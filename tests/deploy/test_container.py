"""`deploy/Dockerfile`: linted, and what must hold of it. `test_container_steps.py` runs its steps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
INSTALL = ROOT / "deploy" / "install.sh"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def instructions(word: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", TEXT)
    return re.findall(rf"^{word} (.+)$", joined, re.MULTILINE)


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([str(program), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_hadolint_finds_mistakes(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN sudo cd /tmp\n")
    program = Path(sys.executable).with_name("hadolint")
    assert subprocess.run([str(program), str(tmp_path / "Dockerfile")], capture_output=True, check=False).returncode


def test_the_image_runs_as_a_user_without_rights_that_kubernetes_can_tell() -> None:
    assert instructions("USER") == ["1000"]
    assert TEXT.index("USER 1000") > TEXT.rindex("RUN ")


def test_what_is_copied_is_there_and_let_through() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {word for words in instructions("COPY") if not words.startswith("--from") for word in words.split()[:-1]}
    assert copied == let_through
    assert [word for word in copied if not (ROOT / word).exists()] == []


def test_the_image_takes_what_make_install_takes() -> None:
    version = re.search(r"UV_VERSION := (\S+)", MAKEFILE).group(1)
    assert f"uv=={version}" in TEXT
    assert f"ARG CUDA={re.search(r'CUDA [?]= (.+)', MAKEFILE).group(1)}\n" in TEXT
    for lock in re.findall(r"LOCK_\d+ := (\S+)", MAKEFILE):
        assert lock in INSTALL.read_text()


def test_a_pod_without_a_gpu_sees_none() -> None:
    assert not re.search(r"NVIDIA_VISIBLE_DEVICES=", TEXT)


class TestInstall:
    """`install.sh` with a `uv` that writes down what it is asked for."""

    @pytest.fixture
    def asked(self, tmp_path: Path):
        def run(*words: str) -> tuple[int, str, list[str]]:
            log, uv = tmp_path / "log", tmp_path / "uv"
            uv.write_text(f'#!/bin/bash\necho "$@" >> {log}\n[[ $2 == compile ]] && cat {tmp_path}/compiled; exit 0\n')
            uv.chmod(0o755)
            compiled = "numpy==2.0\n    --hash=sha256:1\nnvidia-cublas==13.1\n    --hash=sha256:2\ncuda-x==1\nray==2\n"
            (tmp_path / "compiled").write_text(compiled)
            log.write_text("")
            done = subprocess.run(
                ["bash", str(INSTALL), str(uv), "/opt/ubt", *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, done.stderr, log.read_text().splitlines()

        return run

    @pytest.mark.parametrize(("cuda", "lock"), [("13", "requirements.lock"), ("12", "requirements-cuda12.lock")])
    def test_a_cuda_has_its_lock_and_no_developers_tools(self, asked, cuda: str, lock: str) -> None:
        status, _, (install,) = asked(cuda)
        assert status == 0
        assert f"--constraint {lock}" in install
        assert install.endswith(".[s3,postgres,transformers]")

    def test_for_cpus_torch_comes_from_the_index_that_was_given(self, asked) -> None:
        status, _, (torch, _, rest, project) = asked("cpu", "https://example.org/cpu")
        assert status == 0
        assert "--index https://example.org/cpu" in torch
        assert re.search(r"torch==[\d.]+\+cpu torchvision==[\d.]+\+cpu$", torch)
        assert "--require-hashes" in rest
        assert project.endswith("--no-deps .")

    @pytest.mark.parametrize("words", [("11",), ("cpu",), ("cpu", "")])
    def test_what_cannot_be_installed_is_told_before_anything_is(self, asked, words: tuple[str, ...]) -> None:
        status, said, calls = asked(*words)
        assert (status, calls) == (2, [])
        assert "CUDA" in said


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_image_says_which_commit_and_cuda() -> None:
    command = subprocess.run(
        ["make", "--dry-run", "image", "CUDA=12"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "--build-arg CUDA=12" in command
    assert "--build-arg COMMIT=" in command
    assert "ubt:cuda12" in command
