"""Detectors `knn` and `lof`: a pair is trusted as far as its image has close neighbours under the poisoned model.

After Huang et al., "Detecting Backdoor Samples in Contrastive Language Image Pretraining", ICLR 2025
(arXiv 2502.01385): triggered images lie in sparser neighbourhoods than clean ones. They look for neighbours in a
random batch that holds fewer triggered images than neighbours; here they are looked for among all pairs that are
screened. Where many pairs are poisoned, triggered images are each other's neighbours: then `lof`, which compares a
density with that of the neighbours, still tells them apart where `knn` does not (docs/method.md has numbers).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ubt.defenses.detectors import KnnDetector, LofDetector
from ubt.detectors.trust import Trust, screened
from ubt.engine.context import Output, StageContext
from ubt.methods.similarity import embed_pair_images

Embeddings = NDArray[np.floating]


def detect_knn(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32: minus how far its k-th neighbour is.

    The search is exact, among the pairs looked at: time grows with V² and the width of the embeddings.
    """
    return _trust(context, distances_to_neighbour, context.settings(KnnDetector).neighbours)


def detect_lof(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32: minus the local outlier factor.

    The search is as that of `detect_knn`.
    """
    return _trust(context, outlier_factors, context.settings(LofDetector).neighbours)


def distances_to_neighbour(embeddings: Embeddings, neighbours: int) -> Embeddings:
    """Return the Euclidean distance of each of `embeddings[N, D]` to its k-th nearest other one, `[N]`, ≥ 0.

    Source: Ramaswamy et al., SIGMOD 2000. There are never more neighbours than other points.
    """
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 — slow to import

    k = min(neighbours, len(embeddings) - 1)
    distances, _ = NearestNeighbors(n_neighbors=k).fit(embeddings).kneighbors()
    return np.asarray(distances[:, -1])


def outlier_factors(embeddings: Embeddings, neighbours: int) -> Embeddings:
    """Return the local outlier factor of each of `embeddings[N, D]`, `[N]`, > 0, about 1 inside a cluster.

    Source: Breunig et al., SIGMOD 2000. There are never more neighbours than other points.
    """
    from sklearn.neighbors import LocalOutlierFactor  # noqa: PLC0415 — slow to import

    k = min(neighbours, len(embeddings) - 1)
    return -np.asarray(LocalOutlierFactor(n_neighbors=k).fit(embeddings).negative_outlier_factor_)


def _trust(context: StageContext, outlyingness: Callable[[Embeddings, int], Embeddings], neighbours: int) -> Output:
    pairs = screened(context)
    images = embed_pair_images(context.clip("poisoned"), context.pairs, pairs)
    out = outlyingness(images.numpy(), neighbours)
    return Trust(torch.from_numpy(pairs), torch.from_numpy(-out.astype(np.float32))).output()
