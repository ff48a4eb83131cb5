"""Who proposes a study's configurations: its design, its comparison, or Optuna."""

from __future__ import annotations

from sweeps.run.folder import RunFolder
from sweeps.search.adaptive import Adaptive
from sweeps.search.base import DesignProposer, Proposer
from sweeps.search.comparison import Comparison
from sweeps.search.comparison_proposer import ComparisonProposer
from sweeps.study.config import StudyConfig
from ubt.common.fingerprint import fingerprint


def proposer_of(study: StudyConfig, run: RunFolder) -> Proposer:
    """Return the proposer; Optuna's journal lies in the run folder."""
    if isinstance(study.search, Comparison):
        return ComparisonProposer(study.search, study.objectives.ca_floor)
    if not isinstance(study.search, Adaptive):
        laid_out = study.proposals()
        return DesignProposer([one.changes for one in laid_out], [one.label for one in laid_out])
    from sweeps.search.optuna_proposer import OptunaProposer  # noqa: PLC0415 — designs need no Optuna

    assert study.search.lag is not None  # noqa: S101 — settled before
    floor = study.objectives.ca_floor
    # Another space is another Optuna study in the same journal: answers of one make no sense to the other.
    space = fingerprint(study.search.model_dump(mode="json", include={"space", "when", "sampler", "sampler_seed"}))
    name = f"{run.path.name}-{space[:8]}"
    return OptunaProposer(study.search, study.base, study.search.lag, run.journal, name, floor)


def with_lag(study: StudyConfig, concurrent: int) -> StudyConfig:
    """Settle how far the search runs ahead of its results, so that the study as written down says it."""
    if not isinstance(study.search, Adaptive) or study.search.lag:
        return study
    search = study.search.model_copy(update={"lag": max(4, 2 * concurrent)})
    return study.with_parts(search=search)
