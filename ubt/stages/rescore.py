"""Trust every training pair as far as the poisoned model finds its image and caption alike. Ours, as an ablation.

What the paper's detector is worth without a clean model. The poisoned model has learnt the poison too and finds
it alike: what it distrusts is rather noise.
"""

from __future__ import annotations

from ubt.stages.context import Output, StageContext
from ubt.stages.trust import measure, similarities_under

__all__ = ["measure", "run"]


def run(context: StageContext) -> Output:
    """Return `trust[N]` float32 in [−1, 1], the similarity of each pair of D under M_p; low is suspicious."""
    return Output(tensors={"trust": similarities_under(context, "poisoned")})
