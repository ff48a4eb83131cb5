"""Evaluate the image tower by itself: a linear classifier on its frozen embeddings.

Zero-shot classification evaluates both towers together. A defense may cut the trigger's tie to the target's text
and leave the trigger's direction in the image embeddings, where a probe would find it. The protocol is
logistic regression by L-BFGS (Radford et al., 2021, arXiv 2103.00020, section 3.2 and appendix A.3), trained
on clean validation images and evaluated on the test split. Its C is a setting here, not searched.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ubt.common.errors import StageFault
from ubt.data.base import Images, Labels
from ubt.engine.context import Output, PrivilegedContext, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.models.clip import Clip, embed_images
from ubt.trials.metrics import LinearProbe

Embeddings = NDArray[np.float64]


def run(context: PrivilegedContext) -> Output:
    """Return the probe's `ca` on clean and its `asr` on triggered test images, in [0, 1], as facts.

    As everywhere, ASR is of the triggered images whose class is not the target the fraction classified as it.

    Raises:
        StageFault: if the validation images are of one class only.
    """
    clip, val, test = context.clip("model"), context.data.val, context.evaluator.images("test")
    probe = fitted(embedded(clip, val.images), val.labels, context.settings(LinearProbe))
    target = list(context.data.classes).index(context.manifest.attack.target)
    clean = probe.predict(embedded(clip, test.clean.images))
    triggered = probe.predict(embedded(clip, test.triggered))
    return Output(facts={"ca": float((clean == test.clean.labels).mean()), "asr": float((triggered == target).mean())})


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what was measured."""
    return cast("dict[str, float]", dict(output.facts))


def fitted(embeddings: Embeddings, labels: Labels, settings: LinearProbe) -> LogisticRegression:
    """Return the classifier of `embeddings[N, D]` and `labels[N]`; the same bits for the same arguments.

    Raises:
        StageFault: if there is one class only.
    """
    if len(np.unique(labels)) < 2:
        raise StageFault("a linear probe needs validation images of two classes at least")
    return LogisticRegression(C=settings.inverse_regularisation, max_iter=settings.iterations).fit(embeddings, labels)


def embedded(clip: Clip, images: Images) -> Embeddings:
    """Return unit embeddings `[N, D]` float64 of `images[N, H, W, 3]`."""
    return embed_images(clip, images).double().numpy()
