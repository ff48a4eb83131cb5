"""Detectors `knn` and `lof`: a pair is trusted as far as its image has close neighbours under the poisoned model.

After Huang et al., "Detecting Backdoor Samples in Contrastive Language Image Pretraining", ICLR 2025
(arXiv 2502.01385): triggered images lie in sparser neighbourhoods than clean ones. They look for neighbours in a
random batch that holds fewer triggered images than neighbours; here they are looked for among all pairs that are
screened. Where many pairs are poisoned, triggered images are each other's neighbours: then `lof`, which compares a
density with that of the neighbours, still tells them apart where `knn` does not (docs/method.md has numbers).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ubt.defenses.ubt import DetectSettings
from ubt.detectors.trust import Trust, screened
from ubt.engine.context import Output, StageContext
from ubt.methods.similarity import embed_pair_images


def detect_neighbours(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32: minus how far out each lies under M_p.

    The search is exact, among the pairs looked at: time grows with V² and the width of the embeddings.
    """
    pairs = screened(context)
    images = embed_pair_images(context.clip("poisoned"), context.pairs, pairs)
    out = outlyingness(images.numpy(), context.settings(DetectSettings))
    return Trust(torch.from_numpy(pairs), torch.from_numpy(-out.astype(np.float32))).output()


def outlyingness(embeddings: NDArray[np.floating], settings: DetectSettings) -> NDArray[np.floating]:
    """Return how far out each of `embeddings[N, D]` lies, `[N]`, high for outliers.

    `knn`: the Euclidean distance to the k-th nearest other one (Ramaswamy et al., SIGMOD 2000); ≥ 0.
    `lof`: the local outlier factor, about 1 inside a cluster (Breunig et al., SIGMOD 2000); > 0.
    There are never more neighbours than other points.
    """
    from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors  # noqa: PLC0415 — slow to import

    neighbours = min(settings.neighbours, len(embeddings) - 1)
    if settings.detector == "knn":
        distances, _ = NearestNeighbors(n_neighbors=neighbours).fit(embeddings).kneighbors()
        return np.asarray(distances[:, -1])
    return -np.asarray(LocalOutlierFactor(n_neighbors=neighbours).fit(embeddings).negative_outlier_factor_)
