"""What an autoscaler may add, from its configuration: a file that Ray is given where the cluster's head is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

_MONITOR, _CONFIG, _ADDRESS = "monitor.py", "--autoscaling-config=", "--gcs-address="
_MAX_WORKERS = 2
"""Ray's own default."""


def most_workers(config: Mapping[str, Any], fitting: Callable[[Mapping[str, float]], int]) -> int | None:
    """Return how many workers the nodes of a full-grown cluster hold; None if the configuration does not say.

    `fitting` says how many there may be on a node with some resources.
    """
    kinds: Mapping[str, Any] = config.get("available_node_types", {})
    head, left = config.get("head_node_type", ""), config.get("max_workers", _MAX_WORKERS)
    others = [kind for name, kind in kinds.items() if name != head]
    if not others or not all(kind.get("resources") for kind in others):
        return None  # what such a machine has the cloud alone knows
    total = fitting(kinds.get(head, {}).get("resources") or {})
    for fits, count in sorted(
        ((fitting(kind["resources"]), kind.get("max_workers", 0)) for kind in others), reverse=True
    ):
        total += fits * min(count, left)
        left -= min(count, left)
    return total


def config_here(address: str, processes: Path = Path("/proc")) -> Mapping[str, Any]:
    """Return the configuration of the autoscaler that runs on this machine for a cluster; {} if none does.

    There is no other place where Ray keeps it.
    """
    for words in _commands(processes):
        if f"{_ADDRESS}{address}" in words and any(word.endswith(_MONITOR) for word in words):
            for path in (Path(word.removeprefix(_CONFIG)) for word in words if word.startswith(_CONFIG)):
                with suppress(OSError, yaml.YAMLError):
                    return yaml.safe_load(path.expanduser().read_text()) or {}
    return {}


def _commands(processes: Path) -> Iterator[list[str]]:
    """Yield the words of the command of each process of this machine that may be looked at."""
    for path in processes.glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            yield path.read_bytes().decode(errors="replace").split("\0")
