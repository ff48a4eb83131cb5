"""Choose the pairs that the attacker replaces and write their captions: the manifest."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from ubt.attacks import Attack, AttackConfig
from ubt.common.errors import StageFault
from ubt.engine.context import Output, PrivilegedContext
from ubt.engine.poisoning import DECOYS, LEARNED
from ubt.engine.spec import imported
from ubt.methods.training import Indices


def run(context: PrivilegedContext) -> Output:
    """Return the manifest: `indices[P]` int64, sorted, and the P captions and the attack as facts.

    P is 0 for a victim that came poisoned: its pairs are taken as they are, and which of them are
    the attacker's is unknown. The trigger is still needed, to evaluate models. If the attack learns it against the
    clean model, `learned[S, S, 3]` uint8 is there too, or what it reads from a file, `[H, W, C]` uint8 or float32; if
    it has decoys, `decoys[Q]` int64, sorted.

    Raises:
        UserError: if the attack's file cannot be used any more.
        StageFault: if more pairs are to be poisoned than there are, or than the attack can poison.
    """
    attack = _attack(context)
    indices = _indices(context, attack)
    rng = context.rng("captions")
    captions = context.data.train.captions
    return Output(
        tensors={
            "indices": torch.from_numpy(indices),
            **_decoys(context, attack, indices),
            **_learned(context, attack),
        },
        facts={"captions": [attack.caption(rng, captions[index]) for index in indices], "attack": attack.as_json()},
    )


def _attack(context: PrivilegedContext) -> Attack:
    """Return the attack as configured; the settings have the digests of its files in the place of their paths."""
    attack: Attack = TypeAdapter(AttackConfig).validate_python(context.node.settings["attack"])
    return attack.model_copy(update={name: context.file(name) for name in attack.files()})


def _decoys(context: PrivilegedContext, attack: Attack, indices: Indices) -> dict[str, Tensor]:
    count = attack.decoy_count(len(indices))
    clean = np.setdiff1d(np.arange(len(context.data.train)), indices)
    if count > len(clean):
        raise StageFault(
            f"{count} decoys are wanted, but {len(clean)} pairs are clean; lower victim.attack.decoy_ratio"
        )
    if not count:
        return {}
    return {DECOYS: torch.from_numpy(np.sort(context.rng("decoys").choice(clean, size=count, replace=False)))}


def _learned(context: PrivilegedContext, attack: Attack) -> dict[str, Tensor]:
    if attack.learner is None:
        trigger = attack.read()
        return {} if trigger is None else {LEARNED: torch.from_numpy(np.array(trigger))}
    return {LEARNED: imported(attack.learner)(context.clip("clean"), context.data.train, attack)}


def _indices(context: PrivilegedContext, attack: Attack) -> Indices:
    pairs = len(context.data.train)
    if context.node.settings["pairs_as_given"]:
        return np.zeros(0, dtype=np.int64)
    count = attack.count(pairs)
    if count >= pairs:
        raise StageFault(f"{count} pairs are to be poisoned, but there are {pairs}")
    eligible = np.flatnonzero(attack.eligible(context.data.train.captions))
    if count > len(eligible):
        raise StageFault(
            f"{count} pairs are to be poisoned, but this attack can poison only {len(eligible)}, whose captions name "
            f"`{attack.target}`; lower victim.attack.poison_rate or .poison_count"
        )
    return np.sort(context.rng("indices").choice(eligible, size=count, replace=False))
