"""Which earlier epochs a sweep runs as trials of their own: those on the front of its run folder, or chosen there."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from analysis.findings import find, to_judge
from analysis.points.configurations import Configuration
from analysis.records import read_run
from sweeps.planning.trials import TrialPlanner
from sweeps.run.folder import RunFolder
from sweeps.scheduling.earlier_epochs import EarlierEpochs
from sweeps.search.base import differing
from sweeps.search.proposals import Proposal, Proposer
from sweeps.study.config import StudyConfig
from ubt.common.errors import UserError

logger = logging.getLogger(__name__)


def with_earlier_epochs(proposer: Proposer, study: StudyConfig, run: RunFolder, planner: TrialPlanner) -> Proposer:
    """Return what proposes a search's configurations and then, if the study wants them, earlier epochs of its front."""
    if not study.every_epoch:
        return proposer

    def wanted() -> list[Proposal]:
        try:
            judged = to_judge(find(read_run(run.path)))
        except (UserError, OSError) as error:  # a record is spoilt, or a disk fails: the report will tell
            logger.warning("earlier epochs on the front are not run: %s", error)
            return []
        _keep_shared(judged, planner)
        return [_proposal(one, study) for one in judged]

    return EarlierEpochs(proposer, wanted)


def _proposal(wanted: Configuration, study: StudyConfig) -> Proposal:
    return Proposal(
        number=0,
        changes=differing(wanted.changes, study.base),
        label=wanted.first.label.model_copy(update={"epoch_of": wanted.name}),
        replicates=wanted.seeds if wanted.seeds < len(study.seeds) else None,
    )


def _keep_shared(wanted: Sequence[Configuration], planner: TrialPlanner) -> None:
    """Have the epochs kept that another wanted epoch of the same configuration goes on from."""
    last: dict[str, int] = {}
    for one in wanted:
        if one.at:
            last[one.first.trial] = max(one.at.number, last.get(one.first.trial, 0))
    for one in wanted:
        if one.at and one.at.number < last[one.first.trial]:
            planner.keep_epoch(one.at.stage, one.at.number)
