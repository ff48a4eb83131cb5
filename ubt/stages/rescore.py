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
    """Return the `Trust` in the pairs looked at, in [−1, 1]: the similarity of each under M_p."""
    pairs = screened(context)
    return Trust(torch.from_numpy(pairs), similarities_under(context, "poisoned", pairs)).output()
