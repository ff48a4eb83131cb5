"""A Ray of several nodes that are processes of this machine, which this process has joined."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray._raylet import AuthenticationMode, get_authentication_mode
from ray.cluster_utils import Cluster

from sweeps.backends.private import have_token


@contextmanager
def ray_cluster(module: str, *nodes: Mapping[str, Any]) -> Iterator[Cluster]:
    """Yield a cluster of a head without CPUs and some nodes, for classes of a test's module.

    It wants tokens where this process does: for good, once a sweep of an earlier test has had a Ray of its own.
    """
    for sent in (module, "toy_session"):
        cloudpickle.register_pickle_by_value(sys.modules[sent])
    with pytest.MonkeyPatch.context() as environment:
        with_tokens = get_authentication_mode() == AuthenticationMode.TOKEN
        environment.setenv("RAY_AUTH_MODE", "token" if with_tokens else "disabled")
        environment.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # the same Ray may have set it
        have_token()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for node in nodes:
                cluster.add_node(**node)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
