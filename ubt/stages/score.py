"""Trust every training pair as far as the clean model finds its image and caption alike (the paper's detector).

The first half of the paper's suspicion stage, apart from the choice of a ratio because it is the costly half
and does not depend on the ratio. It needs no poisoned model, so that all implants of one poison share it.
"""

from __future__ import annotations

import torch

from ubt.stages.context import Output, StageContext
from ubt.stages.trust import Trust, measure, screened, similarities_under

__all__ = ["measure", "run"]


def run(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−1, 1]: similarity under M_c."""
    pairs = screened(context)
    return Trust(torch.from_numpy(pairs), similarities_under(context, "clean", pairs)).output()
