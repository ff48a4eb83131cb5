from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from sweeps.backends import connection as ray_connection
from sweeps.backends import lifetime
from sweeps.backends.connection import start_ray
from sweeps.cli import doctor
from sweeps.cli.doctor import Finding, diagnose
from ubt.artifacts.store import ArtifactStore
from ubt.common import nvidia

SUBJECTS = ["python", "packages", "torch", "driver", "ray", "mlflow", "store"]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Starting Ray takes seconds and is tested with the sweeps; here it only says that it was asked to."""
    calls: list[str] = []
    monkeypatch.setattr(ray_connection, "start_ray", lambda address, resources: calls.append(address) or 2)
    monkeypatch.setattr(lifetime, "stop_ray", lambda: calls.append("stopped"))
    return calls


def found(store: str) -> dict[str, Finding]:
    findings = diagnose(store)
    assert [finding.subject for finding in findings] == SUBJECTS
    return {finding.subject: finding for finding in findings}


def test_a_machine_that_passes_these_tests_is_well(tmp_path: Path, no_ray: list[str]) -> None:
    findings = found(str(tmp_path / "store"))
    assert [finding for finding in findings.values() if not finding.well] == []
    assert no_ray == ["local", "stopped"]
    assert "2 trials at a time" in findings["ray"].text
    assert not list(ArtifactStore(tmp_path / "store").manifests())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds."""
    subjects = {"_devices": "torch", "_driver": "driver", "_mlflow": "mlflow"}
    for name, subject in subjects.items():
        finding = Finding(subject, True, "not looked at")
        monkeypatch.setattr(doctor, name, lambda finding=finding: finding)


@pytest.mark.usefixtures("quick")
class TestWhatDoesNotWork:
    def test_a_store_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        finding = found(str(tmp_path / "file/store"))["store"]
        assert not finding.well
        assert "cannot be written" in finding.text
        assert "UBT_STORE" in finding.text

    def test_a_ray_that_cannot_be_started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(**_: object) -> None:
            raise RuntimeError("no port is free")

        monkeypatch.setattr(ray_connection, "start_ray", start_ray)
        monkeypatch.setattr("ray.init", fail)
        finding = found(str(tmp_path))["ray"]
        assert (finding.well, finding.text) == (False, "Ray cannot be started: no port is free")

    def test_a_package_that_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(doctor, "version", missing)
        finding = found(str(tmp_path))["packages"]
        assert not finding.well
        assert "ray is not installed" in finding.text
        assert "make install" in finding.text

    def test_without_a_store_the_default_one_is_tried(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UBT_STORE", str(tmp_path / "mine"))
        assert str(tmp_path / "mine") in diagnose(None)[-1].text


class TestDriver:
    """Whether the NVIDIA driver runs what is installed: the driver is played, torch is the one that is installed."""

    @pytest.fixture(autouse=True)
    def _gpus_are_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    @pytest.mark.skipif(torch.cuda.is_available() or torch.version.cuda is None, reason="needs name of no GPU")
    @pytest.mark.parametrize("version", ["470.256.02", "535.129.03"])
    def test_one_that_is_too_old_for_the_wheels_is_bad(self, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvidia, "driver_version", lambda: version)
        finding = doctor._driver()
        assert not finding.well
        assert version in finding.text
        assert torch.__version__ in finding.text

    def test_a_machine_without_one_computes_on_its_cpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nvidia, "driver_version", lambda: "")
        assert doctor._driver().well

    def test_gpus_that_are_hidden_are_no_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(nvidia, "driver_version", lambda: "470.256.02")
        finding = doctor._driver()
        assert (finding.well, "CUDA_VISIBLE_DEVICES hides all GPUs" in finding.text) == (True, True)
