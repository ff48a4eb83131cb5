"""Detectors that compare a pair's image with its caption: under the clean model, under the poisoned one, and both.

- `clean` is the paper's. It is the first half of its suspicion stage, apart from the choice of a ratio because it is
  the costly half and does not depend on the ratio. It needs no poisoned model, so all implants of one poison share it.
- `gain` (ours): a backdoor is what the poisoned model finds alike and the clean model does not. Pairs of noise are
  unlike under both, so they do not stand beside the poison as they do under the clean model alone.
- `poisoned` (ours, as an ablation): what the paper's detector is worth without a clean model. The poisoned model has
  learnt the poison too and finds it alike: what it distrusts is rather noise.
"""

from __future__ import annotations

import torch

from ubt.detectors.trust import Trust, screened, similarities_under
from ubt.engine.context import Output, StageContext


def detect_clean(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−1, 1]: similarity under M_c."""
    pairs = screened(context)
    return Trust(torch.from_numpy(pairs), similarities_under(context, "clean", pairs)).output()


def detect_gain(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−2, 2]: cos under M_c − under M_p."""
    pairs = screened(context)
    clean, poisoned = (similarities_under(context, role, pairs) for role in ("clean", "poisoned"))
    return Trust(torch.from_numpy(pairs), clean - poisoned).output()


def detect_poisoned(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−1, 1]: similarity under M_p."""
    pairs = screened(context)
    return Trust(torch.from_numpy(pairs), similarities_under(context, "poisoned", pairs)).output()
