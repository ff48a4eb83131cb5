"""Distrust every training pair as far as implanting made its image and caption more alike. Ours, as an option.

A backdoor is what the poisoned model finds alike and the clean model does not: `cos under M_p − cos under M_c`. Pairs
of noise are unlike under both, so they do not stand beside the poison as they do under the clean model alone.
"""

from __future__ import annotations

import torch

from ubt.stages.context import Output, StageContext
from ubt.stages.trust import Trust, measure, screened, similarities_under

__all__ = ["measure", "run"]


def run(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−2, 2]: cos under M_c − under M_p."""
    pairs = screened(context)
    clean, poisoned = (similarities_under(context, role, pairs) for role in ("clean", "poisoned"))
    return Trust(torch.from_numpy(pairs), clean - poisoned).output()
