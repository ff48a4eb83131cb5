"""Choose the pairs that the attacker replaces and write their captions: the manifest."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import TypeAdapter

from ubt.attacks import Attack, AttackConfig
from ubt.errors import StageFault
from ubt.stages.context import Output, StageContext


def run(context: StageContext) -> Output:
    """Return the manifest: `indices[P]` int64, sorted, and the P captions and the attack as facts.

    Raises:
        StageFault: if more pairs are to be poisoned than there are.
    """
    attack: Attack = TypeAdapter(AttackConfig).validate_python(context.node.settings)
    pairs = len(context.data.train)
    count = attack.count(pairs)
    if count >= pairs:
        raise StageFault(f"{count} pairs are to be poisoned, but there are {pairs}")
    indices = np.sort(context.rng("indices").choice(pairs, size=count, replace=False))
    captions_rng = context.rng("captions")
    return Output(
        tensors={"indices": torch.from_numpy(indices)},
        facts={"captions": [attack.caption(captions_rng) for _ in indices], "attack": attack.as_json()},
    )
