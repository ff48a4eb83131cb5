"""Run a session's trials on Ray: a private one on this machine, or a cluster."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.session import Session
from sweeps.study import Resources

if TYPE_CHECKING:
    from ray import tune

logger = logging.getLogger(__name__)

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its TensorBoard logger imports torch into this process
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us, and we say how to resume
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


def start_ray(address: str, resources: Resources) -> int:
    """Connect to Ray, or start a private one, and return how many trials can run at a time."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    import ray  # noqa: PLC0415 — 2 s that `ubt plan` need not wait

    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    threads = {
        "env_vars": {
            "OMP_NUM_THREADS": str(resources.cpus_per_trial),
            "MKL_NUM_THREADS": str(resources.cpus_per_trial),
        }
    }
    if address == "local":
        cpus = local_trials(resources) * resources.cpus_per_trial
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, runtime_env=threads, **quiet)
    else:
        ray.init(address=address, runtime_env=threads, **quiet)
    return trials_at_a_time(resources, ray.cluster_resources())  # type: ignore[no-untyped-call]


def local_trials(resources: Resources) -> int:
    """Return how many trials this machine runs at a time."""
    return resources.concurrent_trials or max(1, (os.cpu_count() or 1) // resources.cpus_per_trial)


def trials_at_a_time(resources: Resources, available: dict[str, float]) -> int:
    """Return how many trials fit into a cluster's resources."""
    if resources.concurrent_trials:
        return resources.concurrent_trials
    fits = int(available.get("CPU", 1) // resources.cpus_per_trial)
    if resources.gpus_per_trial:
        fits = min(fits, int(available.get("GPU", 0) / resources.gpus_per_trial))
    return max(1, fits)


def run_on_ray(
    session: Session,
    resources: Resources,
    concurrent: int,
    folder: Path,
    trainable: type[tune.Trainable] | None = None,
) -> None:
    """Run trials until the session has finished; `trainable` may stand in for the real one in measurements.

    Raises:
        KeyboardInterrupt: when it is interrupted; what is done is in the store and the records.
    """
    from ray import tune  # noqa: PLC0415

    from sweeps.searcher import SessionSearcher  # noqa: PLC0415
    from sweeps.trainable import UbtTrainable  # noqa: PLC0415

    demands = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tuner = tune.Tuner(
        tune.with_resources(trainable or UbtTrainable, demands),
        tune_config=tune.TuneConfig(
            search_alg=SessionSearcher(session),
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "ray"),
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
    # Tune ends by looking for result files that we do not let it write, and complains of each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tuner.fit()


def stop_ray() -> None:
    """Leave the cluster, or end the private one."""
    import ray  # noqa: PLC0415

    ray.shutdown()
