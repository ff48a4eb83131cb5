"""UBT: token-level unlearning that removes backdoors from CLIP models (arXiv 2409.19526).

The method itself: configuration, data, models, attacks, stages, the artifact store and the pipeline that
runs them in one process. Nothing here knows Ray, Optuna or MLflow.
"""

__version__ = "0.1.0"
