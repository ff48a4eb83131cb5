"""UBT: token-level unlearning that removes backdoors from CLIP models (arXiv 2409.19526).

The method itself: data, models, attacks, defenses, stages, the artifact store, and the pipeline that runs a trial in
one process. Nothing here knows Ray, Optuna or MLflow. What is public:

- `TrialConfig`, `run_trial` and `TrialRecord`: one trial, from its settings to what came of it;
- `ATTACKS`, `DEFENSES`, `DETECTORS`, `METRICS`, `DATA_SOURCES` and `STAGES`: the registries, to look up and add to;
- `read_records`: the records of a run folder;
- `UserError`: what is raised for a mistake in what was given, with every mistake found.

Names are imported when they are used: `import ubt` loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ubt.lazy import lazily

if TYPE_CHECKING:
    from ubt.attacks import ATTACKS
    from ubt.common.errors import UserError
    from ubt.data import DATA_SOURCES
    from ubt.defenses import DEFENSES
    from ubt.defenses.detectors import DETECTORS
    from ubt.engine.runner import run_trial
    from ubt.engine.spec import STAGES
    from ubt.trials.config import TrialConfig
    from ubt.trials.metrics import METRICS
    from ubt.trials.record import TrialRecord, read_records

__version__ = "0.2.0"

__all__ = [
    "ATTACKS",
    "DATA_SOURCES",
    "DEFENSES",
    "DETECTORS",
    "METRICS",
    "STAGES",
    "TrialConfig",
    "TrialRecord",
    "UserError",
    "read_records",
    "run_trial",
]

_HOMES = {
    "ATTACKS": "ubt.attacks",
    "DATA_SOURCES": "ubt.data",
    "DEFENSES": "ubt.defenses",
    "DETECTORS": "ubt.defenses.detectors",
    "METRICS": "ubt.trials.metrics",
    "STAGES": "ubt.engine.spec",
    "TrialConfig": "ubt.trials.config",
    "TrialRecord": "ubt.trials.record",
    "UserError": "ubt.common.errors",
    "read_records": "ubt.trials.record",
    "run_trial": "ubt.engine.runner",
}

__getattr__ = lazily(__name__, _HOMES)
