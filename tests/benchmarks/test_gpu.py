"""`benchmarks/gpu.py` on a CPU, with few pictures: every stage that computes is measured, and the table names it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("benchmark_of_gpus", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_stage_that_computes_has_a_row(tmp_path):
    """In a process of its own, as the script adds a source of data."""
    words = ("--models", "tiny-rn", "--pairs", "64", "--judged", "16", "--batch-size", "16", "--folder", str(tmp_path))
    program = [sys.executable, str(SCRIPT), *words, "--out", str(tmp_path / "rows.json")]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {"implant", "score", "overfit", "attribute", "unlearn", "judge"} <= {row["stage"] for row in rows}
    for row in rows:
        assert row["images_per_second"] > 0
        assert row["share_of_bare_model"] > 0
        assert row["share_of_matmul"] > 0
        assert row["gpu_busy"] is None  # there is none here
    lines = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_how_busy_a_gpu_was_is_the_mean_between_two_moments(gpu):
    seen = gpu.Seen([(1.0, 0.0), (2.0, 80.0), (3.0, 100.0), (4.0, 10.0)])
    assert seen.share(1.5, 3.5) == 0.9
    assert seen.share(5, 6) is None


def test_an_image_that_is_trained_on_takes_three_times_the_operations(gpu):
    from ubt.models.build import build_clip
    from ubt.models.settings import ModelSettings

    clip = build_clip(ModelSettings(random_weights=True), 0, gpu.torch.device("cpu"))
    flops = gpu.flops_of_one(clip)
    assert flops["trained_images"] == 3 * flops["images"] > 0
    assert flops["trained_captions"] == 3 * flops["captions"] > 0
