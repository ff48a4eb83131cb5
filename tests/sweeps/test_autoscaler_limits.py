"""How many workers a cluster that grows may come to hold, from its autoscaler's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.backends.connection import capacity
from sweeps.study.config import Resources
from sweeps.workers.autoscaler import config_here, most_workers

ROOT = Path(__file__).parents[2]
HALF = Resources(gpus_per_trial=0.5)


def fitting(node: Mapping[str, float]) -> int:
    return capacity(HALF, [node])


def config(workers: int, **kinds: dict[str, Any]) -> dict[str, Any]:
    head = {"resources": {"CPU": 4}}
    return {"max_workers": workers, "head_node_type": "head", "available_node_types": {"head": head, **kinds}}


SMALL, LARGE = (
    {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 10},
    {"resources": {"CPU": 64, "GPU": 8}, "max_workers": 2},
)


@pytest.mark.parametrize(
    ("given", "most"),
    [
        (config(8, small=SMALL), 16),
        (config(20, small=SMALL), 20),
        (config(3, small=SMALL, large=LARGE), 2 * 16 + 2),
        (config(8, small={**SMALL, "resources": {"CPU": 4}}), 0),
        (config(8, small={**SMALL, "resources": {}}), None),
        ({}, None),
    ],
)
def test_each_kind_of_node_counts_up_to_its_own_and_the_cluster_s_most(given: dict[str, Any], most: int | None) -> None:
    assert most_workers(given, fitting) == most


def test_the_aws_file_alone_does_not_say_what_its_machines_have() -> None:
    assert most_workers(yaml.safe_load((ROOT / "cluster.yaml").read_text()), fitting) is None


def test_the_autoscaler_of_this_cluster_is_found_among_the_processes(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(8, small=SMALL)))
    for pid, address in (("7", "10.0.0.1:6379"), ("8", "10.0.0.2:6379")):
        words = ["python", "/ray/_private/monitor.py", f"--gcs-address={address}"]
        words += [f"--autoscaling-config={tmp_path / 'config.yaml'}"] if pid == "8" else []
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    assert config_here("10.0.0.2:6379", tmp_path)["max_workers"] == 8
    assert config_here("10.0.0.1:6379", tmp_path) == config_here("10.0.0.3:6379", tmp_path) == {}
