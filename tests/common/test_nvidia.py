"""Whether a driver runs the wheels that are installed: what is said on machines that are not this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ubt.common import nvidia
from ubt.common.nvidia import Torch, driver_version, fit

NEW = Torch("2.15.0", "13.2")
OLD = Torch("2.10.0", "12.8")
KINDS_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
KINDS_12 = ("sm_70", "sm_75", "sm_80", "sm_90a")


@pytest.mark.parametrize(
    ("driver", "torch", "well", "said"),
    [
        ("", NEW, True, "no NVIDIA driver: trials run on the CPU"),
        ("", Torch("2.15.0", None), True, "no NVIDIA driver"),
        ("535.129.03", NEW, False, "driver 535.129.03 is too old: torch 2.15.0 is built for CUDA 13.2; `make install "
         "CUDA=12`, or install a driver from 580.65.06 on"),
        ("580.65.05", NEW, False, "CUDA=12"),
        ("470.256.02", NEW, False, "install a driver from 580.65.06 on"),
        ("470.256.02", OLD, False, "install a driver from 525.60.13 on"),
        ("580.95.05", NEW, False, "torch sees no GPU"),
        ("535.129.03", OLD, False, "torch sees no GPU"),
        ("580.95.05", Torch("2.15.0", None), False, "built for CPUs; install `make install CUDA=13`"),
        ("535.129.03", Torch("2.15.0", None), False, "CUDA=12"),
        ("580.95.05", Torch("2.15.0", "13.2", True, KINDS_13, [("NVIDIA H100", (9, 0))]), True, "for CUDA 13.2"),
        ("580.95.05", Torch("2.15.0", "13.2", True, KINDS_13, [("Tesla V100", (7, 0))]), False,
         "Tesla V100 (compute capability 7.0) is too old for torch 2.15.0, whose code begins with 7.5"),
        ("535.129.03", Torch("2.10.0", "12.8", True, KINDS_12, [("Tesla V100", (7, 0))]), True, "runs torch 2.10.0"),
        ("570.86.10", Torch("2.15.0", "13.2", True, KINDS_13, [("NVIDIA A100", (8, 0))]), True, "runs torch 2.15.0"),
    ],
)  # fmt: skip
def test_what_a_driver_means_for_torch(driver: str, torch: Torch, well: bool, said: str) -> None:
    found = fit(driver, torch)
    assert (found.well, said in found.text) == (well, True), found.text


def test_a_driver_that_runs_neither_lock_is_not_sent_to_one() -> None:
    assert "make install" not in fit("470.256.02", NEW).text


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\nGCC version:  12", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (a@b)", "580.95.05"),
        ("NVRM version: something else", ""),
    ],
)  # fmt: skip
def test_the_driver_s_version_is_read_from_the_kernel(
    text: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(nvidia, "_DRIVER_FILE", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() == version


@pytest.mark.parametrize(("shown", "version"), [("576.40\n576.40", "576.40"), ("Failed to initialize NVML", "")])
def test_without_the_kernel_s_file_nvidia_smi_is_asked(
    shown: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{shown}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(nvidia, "_DRIVER_FILE", tmp_path / "none")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert driver_version() == version
