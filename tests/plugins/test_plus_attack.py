"""A package outside the repository: installed, checked by `ubt.testing`, and swept with on Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).parent / "plus_attack"
MAIN = "from sweeps.cli.app import main; main()"
ONE = "search={design: list, trials: [{}]}"


class Site:
    """A folder that the package is installed into, and commands that see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"

    def install(self, version: str = "1.0") -> None:
        source = self.folder / f"source-{version}"
        shutil.copytree(PACKAGE, source)
        described = (source / "pyproject.toml").read_text()
        (source / "pyproject.toml").write_text(described.replace('version = "1.0"', f'version = "{version}"'))
        shutil.rmtree(self.site, ignore_errors=True)
        words = ["--no-deps", "--no-build-isolation", "--quiet", "--target", str(self.site), str(source)]
        subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True)

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.site), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path, "UBT_STORE": str(self.folder / "store")}
        ended = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=self.folder, check=False
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended

    def sweep(self, study: str, name: str, *words: str) -> dict[str, dict[str, bool]]:
        """Run a small study and return, for each trial, which of its stages were reused."""
        self.python("-c", MAIN, "sweep", study, "--name", name, "--set", "tracking.enabled=false", *words)
        records = [json.loads(path.read_text()) for path in (self.folder / "runs" / name / "records").glob("*.json")]
        assert {record["state"] for record in records} == {"DONE"}, [record["reason"] for record in records]
        return {record["trial"]: {stage["stage"]: stage["reused"] for stage in record["stages"]} for record in records}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    found = Site(tmp_path_factory.mktemp("plugin"))
    found.install()
    return found


def test_its_contract_tests_run_with_ubt_testing(site):
    checks = "check_attack(Plus); check_detector(CentroidDetector)"
    site.python("-c", f"from ubt.testing import *; from plus_attack import *; {checks}")


BESIDE = """
from typing import ClassVar, Literal
from ubt.attacks import ATTACKS, Attack

@ATTACKS.register
class Dot(Attack):
    \"\"\"A white dot in the top left corner.\"\"\"

    kind: Literal["dot"] = "dot"
    label: ClassVar[str] = "dot"

    def stamp(self, images, rows):
        triggered = images.copy()
        triggered[:, :6, :6] = 255
        return triggered
"""
STUDY = """
extends: smoke
plugins: [./dot_attack.py]
defense: {detector: centroid}
search: {design: list, trials: [{victim.attack: {kind: plus}}, {victim.attack: {kind: dot}}, {}]}
resources: {concurrent_trials: 2}
"""


@pytest.fixture(scope="module")
def swept(site) -> dict[str, dict[str, bool]]:
    """What came of a sweep on Ray with the package's attack, one of a file beside the study, and a built-in one."""
    (site.folder / "dot_attack.py").write_text(BESIDE)
    (site.folder / "dotted.yaml").write_text(STUDY)
    return site.sweep("dotted.yaml", "both")


def test_its_attack_and_its_detector_are_swept_on_ray_with_two_workers_beside_an_attack_in_a_file(site, swept):
    assert len(swept) == 3
    assert all("detect_centroid" in stages for stages in swept.values())
    records = (site.folder / "runs" / "both" / "records").glob("*.json")
    assert {json.loads(path.read_text())["config"]["victim"]["attack"]["kind"] for path in records} == {
        "plus",
        "dot",
        "badnets",
    }


def test_a_changed_version_recomputes_its_stages_and_those_behind_them_only(site, swept):
    built_in = ["--set", "defense.detector=centroid", "--set", ONE, "--address", "inline"]
    assert all(all(stages.values()) for stages in site.sweep("smoke", "again", *built_in).values())
    site.install("1.1")
    first = min(site.sweep("smoke", "after", *built_in).items())[1]
    behind = {"detect_centroid", "suspect", "overfit", "select", "attribute", "unlearn", "evaluate"}
    assert {stage for stage, reused in first.items() if not reused} == behind
    assert {stage for stage, reused in first.items() if reused} == {"pretrain", "poison", "implant"}


def test_the_documentation_shows_this_package():
    page = (ROOT / "docs" / "howto" / "extend.md").read_text()
    for name in ("plus_attack.py", "pyproject.toml"):
        assert (PACKAGE / name).read_text().rstrip() in page, name
