"""BadCLIP: a patch learnt against the clean model's embeddings (Liang et al., CVPR 2024, arXiv 2311.12075)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ubt.attacks.base import Alike, Carrying, naming
from ubt.attacks.changes import Change
from ubt.attacks.patches import enlarged, in_the_middle, square_px
from ubt.common.errors import Problem, UserError
from ubt.config.base import Function


class BadClip(Alike, Carrying):
    """Puts a patch into the middle that the clean model takes for the target.

    `x'[i, j] = patch[i, j]` inside the square, `x` elsewhere. The patch `p` is what `ubt/attacks/badclip_patch.py`
    finds to minimise, over images x of other things than the target and their captions c,

        −log softmax of s · cos(f(x ⊕ p), g(t)) against the s · cos(f(x ⊕ p), g(c)) of a batch
        + image_weight · relu(‖f(x ⊕ p) − f(y)‖ − ‖f(x ⊕ p) − f(x)‖ + margin)

    with the clean model's unit image embedding f, unit text embedding g and logit scale s, texts t that name the
    target, and images y whose captions name it. Source: Liang et al., arXiv 2311.12075: a contrastive loss towards
    the target's texts, and a triplet of margin 1 that draws to the target's images and away from the image itself.
    They weigh the triplet 500; on the embedded model that drowns the text.
    """

    learner: ClassVar[Function | None] = "ubt.attacks.badclip_patch:optimise_patch"

    kind: Literal["badclip"] = "badclip"
    label: ClassVar[str] = "BadCLIP"
    patch_fraction: float = Field(default=0.16, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (0.16 is 5 of 32 pixels, 36 of 224; theirs is 16 of 224)."""
    patch_steps: int = Field(default=200, ge=1)
    """Steps in which the patch is learnt."""
    patch_learning_rate: float = Field(default=0.03, gt=0)
    """Adam's learning rate; pixels are in 0–1."""
    patch_batch_size: int = Field(default=64, ge=1)
    """Images that each step learns from."""
    image_weight: float = Field(default=0.3, ge=0)
    """Weight of the image term beside the text term; at 0 no images of the target are needed."""
    margin: float = Field(default=1.0, gt=0)
    """How much nearer to images of the target than to themselves patched images are to be."""

    def check_pairs(self, captions: Sequence[str]) -> None:
        """Refuse captions of which all name the target, or none though images of it are needed.

        Raises:
            UserError: as `Attack.check_pairs`, or saying so.
        """
        super().check_pairs(captions)
        named = naming(self.target, captions)
        if named.all() or (self.image_weight and not named.any()):
            message = f"the patch is learnt from images of it and of others; captions that name it: {named.sum()}"
            advice = f"{len(captions)} captions there are: take another class" + (
                "" if named.any() else ", or image_weight: 0"
            )
            raise UserError(Problem("victim.attack.target", message, self.target, advice))

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size.

        Raises:
            ValueError: if the patch has not been learnt yet.
        """
        if self._trigger is None:
            raise ValueError("badclip has no patch yet: it is learnt by the `poison` stage, see `Manifest.of`")
        learned = self._trigger.pixels.astype(np.uint8)
        patch = enlarged(learned, square_px(height_px, width_px, self.patch_fraction))
        return in_the_middle(height_px, width_px, patch)
