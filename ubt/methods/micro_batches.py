"""CLIP's loss of a whole batch by parts of it: the same gradient, with the memory of one part.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache), arXiv 2101.06983:
embed the batch without gradients; take the gradient of the loss with respect to the embeddings; embed part by part
again, and send each part's share of it back. Contrast is with the whole batch, so the loss is exact. Batch norm that is
trained sees a part at a time, as on several GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ubt.data.base import Images
from ubt.methods.losses import clip_loss
from ubt.models.clip import Clip


def backward_by_parts(clip: Clip, images: Images, tokens: Tensor, part: int) -> Tensor:
    """Add the gradient of CLIP's loss of `images[B, H, W, 3]` and `tokens[B, L]` to that of the model's weights.

    Returns the loss, a scalar without a graph. At most `part` pairs are embedded with a graph at a time.
    """
    parts = [slice(start, start + part) for start in range(0, len(images), part)]
    drawn: list[Tensor] = []
    with torch.no_grad(), _statistics_untouched(clip.net):
        embedded = []
        for one in parts:
            drawn.append(torch.get_rng_state())
            embedded.append((clip.encode_images(images[one]), clip.encode_tokens(tokens[one])))
    image_side, text_side = (torch.cat(side).requires_grad_() for side in zip(*embedded, strict=True))
    loss = clip_loss(image_side, text_side, clip.logit_scale)
    loss.backward()  # type: ignore[no-untyped-call]
    assert image_side.grad is not None and text_side.grad is not None  # noqa: S101
    after = torch.get_rng_state()
    for one, state in zip(parts, drawn, strict=True):
        torch.set_rng_state(state)  # dropout leaves out what it left out before
        again = [clip.encode_images(images[one]), clip.encode_tokens(tokens[one])]
        torch.autograd.backward(again, [image_side.grad[one], text_side.grad[one]])
    torch.set_rng_state(after)
    return loss.detach()


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
