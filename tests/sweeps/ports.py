"""Ports that nobody takes by chance between the look at them and their use."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_OF_RAY = (range(10_000, 20_000), range(23_000, 24_001))
"""Its workers, and the servers that it gives to clients."""


def free_port() -> int:
    """Return a port that is free, and that neither the kernel hands out to whoever asks for any nor Ray to its own."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    handed_out = {port for ports in (range(low, high + 1), *_OF_RAY) for port in ports}
    left = sorted(set(range(5_000, 65_536)) - handed_out) or range(20_000, 23_000)
    for port in random.SystemRandom().sample(left, len(left)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
