"""Distrust every training pair as far as implanting made its image and caption more alike. Ours, as an option.

A backdoor is what the poisoned model finds alike and the clean model does not: `cos under M_p − cos under M_c`. Pairs
of noise are unlike under both, so they do not stand beside the poison as they do under the clean model alone.
"""

from __future__ import annotations

from ubt.stages.context import Output, StageContext
from ubt.stages.trust import measure, similarities_under

__all__ = ["measure", "run"]


def run(context: StageContext) -> Output:
    """Return `trust[N]` float32 in [−2, 2], each pair's similarity under M_c less that under M_p; low is suspicious."""
    return Output(tensors={"trust": similarities_under(context, "clean") - similarities_under(context, "poisoned")})
