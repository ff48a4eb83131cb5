"""Backdoor attacks: triggers on images and captions that name a target. Loads no torch.

A new attack is a class in a file here and a name in `ATTACKS.add`; one of another distribution an entry point in the
group `ubt.attacks`.
"""

from __future__ import annotations

from typing import Annotated

from ubt.attacks.badclip import BadClip
from ubt.attacks.base import Attack, Rows, Split
from ubt.attacks.changes import Images
from ubt.attacks.files import Overlay, Patch
from ubt.attacks.overlays import Blended, BlendedText, BlendedTriangles, Sig
from ubt.attacks.patches import BadNets, BadNetsStripes, LabelConsistent, TrojVqa
from ubt.attacks.published import (
    BackdoorBenchBadNets,
    BadClipPatch,
    CleanClipBadNets,
    CleanClipLabelConsistent,
    DetectClipBadNets,
    ParBadNetsStripes,
)
from ubt.attacks.published_overlays import (
    BackdoorBenchBlended,
    BackdoorBenchSig,
    BadClipSig,
    CleanClipBlended,
    CleanClipSig,
    DetectClipBlended,
    DetectClipSig,
    ParBlendedStripes,
    ParText,
    ParTriangles,
)
from ubt.attacks.wanet import BackdoorBenchWaNet, CleanClipWaNet, DetectClipWaNet, WaNet
from ubt.common.registry import Registry
from ubt.config.base import ByKind, kind_of

ATTACKS: Registry[type[Attack]] = Registry("attack", "ubt.attacks", kind_of, __name__, Attack)
ATTACKS.add(BadNets, Blended, Sig, WaNet, TrojVqa, BadClip, LabelConsistent)
ATTACKS.add(BadNetsStripes, BlendedText, BlendedTriangles)
ATTACKS.add(Patch, Overlay)
ATTACKS.add(CleanClipBadNets, CleanClipBlended, CleanClipSig, CleanClipWaNet, CleanClipLabelConsistent)
ATTACKS.add(BadClipPatch, BadClipSig)
ATTACKS.add(ParBadNetsStripes, ParBlendedStripes, ParTriangles, ParText)
ATTACKS.add(DetectClipBadNets, DetectClipBlended, DetectClipSig, DetectClipWaNet)
ATTACKS.add(BackdoorBenchBadNets, BackdoorBenchBlended, BackdoorBenchSig, BackdoorBenchWaNet)

AttackConfig = Annotated[Attack, ByKind(ATTACKS)]
"""An attack as configured, of any kind that is registered."""

__all__ = ["ATTACKS", "Attack", "AttackConfig", "Images", "Rows", "Split"]
