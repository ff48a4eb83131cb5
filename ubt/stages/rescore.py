"""Trust every training pair as far as the poisoned model finds its image and caption alike. Ours, as an ablation.

What the paper's detector is worth without a clean model. The poisoned model has learnt the poison too and finds
it alike: what it distrusts is rather noise.
"""

from __future__ import annotations

import torch

from ubt.stages.context import Output, StageContext
from ubt.stages.trust import Trust, measure, screened, similarities_under

__all__ = ["measure", "run"]


def run(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−1, 1]: similarity under M_p."""
    pairs = screened(context)
    return Trust(torch.from_numpy(pairs), similarities_under(context, "poisoned", pairs)).output()
