"""The manifest: choose the pairs that the attacker replaces and write their captions, or find those that came so."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from pydantic import JsonValue, TypeAdapter
from torch import Tensor

from ubt.attacks import Attack, AttackConfig
from ubt.attacks.base import Trigger
from ubt.common.errors import StageFault
from ubt.data.digests import digest_files
from ubt.engine.context import Output, PrivilegedContext
from ubt.engine.given_poison import Located, located, read_trigger
from ubt.engine.poisoning import DECOYS, LEARNED
from ubt.engine.spec import MANIFEST_FILE, imported
from ubt.methods.feeding import Indices
from ubt.trials.poison import GivenPoison, read_poison_list


def run(context: PrivilegedContext) -> Output:
    """Return the manifest: `indices[P]` int64, sorted, and the P captions and the attack as facts.

    If the attack learns its trigger against the clean model, `learned[S, S, 3]` uint8 is there too, or what it reads
    from a file, `[H, W, C]` uint8 or float32; if it has decoys, `decoys[Q]` int64, sorted.

    Pairs that came poisoned are taken as they are, with the captions they have; P is 0 if it is unknown which of them
    are the attacker's. The trigger is still needed, to evaluate models; the attack is None if it is not known.

    Raises:
        StageFault: if more pairs are to be poisoned than there are, or than the attack can poison; or if a file of the
            attack, or the list of given poison, is another than when the stage was planned.
        UserError: if the attack's file cannot be used any more, or that list is not one of these pairs.
    """
    attack = _attack(context)
    if context.node.settings["pairs_as_given"]:
        return _given(context, attack)
    if attack is None:
        raise StageFault("no attack is known, so no pair can be poisoned")
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


def _attack(context: PrivilegedContext) -> Attack | None:
    """Return the attack as configured; the settings have the digests of its files in the place of their paths."""
    settings = cast("dict[str, JsonValue] | None", context.node.settings["attack"])
    if settings is None:
        return None
    attack: Attack = TypeAdapter(AttackConfig).validate_python(settings)
    return attack.model_copy(update={name: _planned(context.file(name), settings[name]) for name in attack.files()})


def _planned(path: Path | None, digest: JsonValue) -> Path | None:
    """Return a file that the stage reads; `StageFault` if it is not the one that is in the stage's key."""
    if path and digest_files([path], path.name) != digest:
        raise StageFault(f"{path} is another file than when this was planned; run the command again")
    return path


def _given(context: PrivilegedContext, attack: Attack | None) -> Output:
    pairs, said = context.data.train, cast("dict[str, JsonValue]", context.node.settings.get("poison", {}))
    manifest = _planned(context.file(MANIFEST_FILE), said.get("manifest"))
    poison = GivenPoison.model_validate({**said, "manifest": manifest})
    found = located(poison, pairs) or Located()
    return Output(
        tensors={
            "indices": torch.from_numpy(found.indices),
            **({DECOYS: torch.from_numpy(found.decoys)} if len(found.decoys) else {}),
            **_trigger(attack, poison),
        },
        facts={
            "captions": [pairs.captions[index] for index in found.indices],
            "attack": attack.as_json() if attack else None,
            "given": True,
        },
    )


def _trigger(attack: Attack | None, poison: GivenPoison) -> dict[str, Tensor]:
    """Return the trigger that is measured with, where it is no function of the settings: it is not learnt anew."""
    if attack is None:
        return {}
    trigger: Trigger | None = attack.read()
    if attack.learns:
        listed = read_poison_list(poison.manifest).trigger if poison.manifest else None
        if listed is None:
            raise StageFault("the trigger of pairs that came poisoned is not learnt anew, and no manifest holds it")
        trigger = read_trigger(listed)
    return {} if trigger is None else {LEARNED: torch.from_numpy(np.array(trigger))}


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
