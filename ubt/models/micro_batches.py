"""Embeddings of a whole batch of which training remembers a part at a time: the same gradient, with less memory.

Each part is embedded once, so that a loss contrasts the whole batch, and again when its share of the gradient is sent
back, as in Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache), arXiv
2101.06983; torch's checkpoints do it. Batch norm that is trained sees a part at a time, as on several GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ubt.data.base import Images

Batch = TypeVar("Batch", Tensor, Images | Tensor)


def by_parts(encode: Callable[[Batch], Tensor], batch: Batch, size: int | None, net: nn.Module) -> Tensor:
    """Return `encode(batch)`, `[B, D]`, with at most `size` of the batch in the graph of `net` at a time.

    Where no gradient is wanted, or `size` is None, it is computed at once.
    """
    if size is None or size >= len(batch) or not torch.is_grad_enabled():
        return encode(batch)

    def passes() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_untouched(net)

    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    # What dropout left out in the first pass it leaves out in the second: the state of the generators is put back.
    return torch.cat([checkpoint(encode, part, use_reentrant=False, context_fn=passes) for part in parts])


@contextmanager
def _statistics_untouched(net: nn.Module) -> Iterator[None]:
    """Let batch norm compute with a part's own statistics, and learn nothing from them: it sees each part twice."""
    norms = [one for one in net.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
            norm.num_batches_tracked = None
        yield
    finally:
        for norm, momentum, seen in kept:
            norm.momentum, norm.num_batches_tracked = momentum, seen
