"""Choose the pairs that the attacker replaces and write their captions: the manifest."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import TypeAdapter

from ubt.attacks import Attack, AttackConfig
from ubt.errors import StageFault
from ubt.stages.context import Output, StageContext
from ubt.training import Indices


def run(context: StageContext) -> Output:
    """Return the manifest: `indices[P]` int64, sorted, and the P captions and the attack as facts.

    P is 0 for a victim that came poisoned: its pairs are taken as they are, and nobody here knows which of
    them are the attacker's. The trigger is still needed, to judge models.

    Raises:
        StageFault: if more pairs are to be poisoned than there are.
    """
    attack: Attack = TypeAdapter(AttackConfig).validate_python(context.node.settings["attack"])
    indices = _indices(context, attack)
    rng = context.rng("captions")
    return Output(
        tensors={"indices": torch.from_numpy(indices)},
        facts={"captions": [attack.caption(rng) for _ in indices], "attack": attack.as_json()},
    )


def _indices(context: StageContext, attack: Attack) -> Indices:
    pairs = len(context.data.train)
    if context.node.settings["pairs_as_given"]:
        return np.zeros(0, dtype=np.int64)
    count = attack.count(pairs)
    if count >= pairs:
        raise StageFault(f"{count} pairs are to be poisoned, but there are {pairs}")
    return np.sort(context.rng("indices").choice(pairs, size=count, replace=False))
