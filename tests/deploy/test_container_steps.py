"""The steps of `deploy/Dockerfile`, run: what comes of them sweeps a study as a user without rights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_steps import Stage, build, why_not

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789ab"

pytestmark = [pytest.mark.clusters, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("image")
    folder.chmod(0o755)
    made = build(ROOT / "deploy/Dockerfile", ROOT, folder, {"CUDA": "13", "COMMIT": COMMIT})
    made.environment |= {"HOME": "/home/ubt", "OMP_NUM_THREADS": "1"}
    yield made
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_the_image_sweeps_a_study_as_a_user_without_rights(image: Stage) -> None:
    assert image.run("id", "-u").strip() == "1000"
    sweep = ["ubt", "sweep", "smoke", "--address", "inline", "--out", "/home/ubt/runs"]
    assert "DONE" in image.run(*sweep)
    record = json.loads(next((image.root / "home/ubt/runs/smoke/records").glob("t*.json")).read_text())
    assert (record["state"], record["commit"]) == ("DONE", COMMIT)


def test_ray_starts_from_a_login_shell_as_the_operator_starts_it(image: Stage) -> None:
    assert image.run("bash", "-lc", "ray --version && ubt --help").startswith("ray, version 2.")
    assert image.run("wget", "--version").startswith("GNU Wget")


def test_it_has_the_drivers_of_stores_and_databases_and_no_tools_of_developers(image: Stage) -> None:
    image.run("python", "-c", "import s3fs, boto3, psycopg, transformers")
    for module in ("pytest", "mypy", "moto", "mkdocs", "pip", "uv"):
        with pytest.raises(RuntimeError, match="No module named"):
            image.run("python", "-c", f"import {module}")
    for program in ("gcc", "git"):
        with pytest.raises(RuntimeError):
            image.run("which", program)


def test_it_is_small_but_for_the_libraries_of_cuda(image: Stage) -> None:
    def megabytes(*words: str) -> int:
        shown = subprocess.run(["du", "-smc", *words], capture_output=True, text=True, check=True).stdout
        return int(shown.splitlines()[-1].split()[0])

    packages = image.root / "opt/ubt/lib/python3.11/site-packages"
    cuda = megabytes(*(str(packages / name) for name in ("nvidia", "torch", "triton")))
    rest = megabytes(str(image.root)) - cuda
    print(f"image: {cuda} MB for torch and CUDA, {rest} MB for the rest")
    assert rest < 2000
