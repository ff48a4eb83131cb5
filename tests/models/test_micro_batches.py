"""A batch by parts: the gradient of the whole, batch norm's statistics once, and dropout as it was drawn."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch

from ubt.methods.losses import clip_loss
from ubt.models.clip import Clip

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
TEXT = {"context_length": 12, "vocab_size": 60, "width": 32, "heads": 2, "layers": 2}


def transformer(**vision):
    torch.manual_seed(0)
    net = open_clip.model.CLIP(embed_dim=16, vision_cfg={**VISION, **vision}, text_cfg=dict(TEXT))
    return Clip(net.train(), lambda captions: torch.zeros(0), 32, (0.5,) * 3, (0.25,) * 3, torch.device("cpu"))


def batch(count=13, length=12):
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(1, 59, size=(count, length)))
    tokens[:, -1] = 59
    return rng.integers(0, 256, size=(count, 32, 32, 3), dtype=np.uint8), tokens


def gradients(clip, images, tokens, part=None):
    clip.net.zero_grad()
    clip = replace(clip, micro_batch_size=part)
    loss = clip_loss(clip.encode_images(images), clip.encode_tokens(tokens), clip.logit_scale)
    loss.backward()
    weights = {name: weight.grad for name, weight in clip.net.named_parameters() if weight.grad is not None}
    return float(loss.detach()), {name: gradient.to_dense().clone() for name, gradient in weights.items()}


@pytest.mark.parametrize("part", [2, 4, 12, 13])
def test_the_gradient_of_the_parts_is_that_of_the_whole_batch(part):
    clip, (images, tokens) = transformer(), batch()
    loss, whole = gradients(clip, images, tokens)
    found, parts = gradients(clip, images, tokens, part)
    assert found == pytest.approx(loss, abs=1e-6)
    assert whole.keys() == parts.keys()
    assert "logit_scale" in whole
    for name, gradient in whole.items():
        assert (parts[name] - gradient).norm() <= 1e-6 * max(1.0, float(gradient.norm())), name


def test_contrast_is_with_the_whole_batch_and_not_with_a_part():
    clip, (images, tokens) = transformer(), batch()
    _, whole = gradients(clip, images, tokens)
    _, few = gradients(clip, images[:4], tokens[:4])
    assert (few["text_projection"] - whole["text_projection"]).norm() > 0.1 * whole["text_projection"].norm()


def test_batch_norm_that_is_frozen_changes_nothing_and_one_that_is_trained_learns_from_each_part_once(clip):
    images, _ = batch(12)
    tokens = clip.tokenize([f"a photo number {number}" for number in range(12)])
    clip.net.eval()
    _, whole = gradients(clip, images, tokens)
    _, parts = gradients(clip, images, tokens, 5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6 * max(1.0, float(gradient.norm())))
    clip.net.train()
    before, norm = clip.state(), clip.net.visual.bn1
    expected = clip.with_state(before)
    expected.net.train()
    with torch.no_grad():
        for start in (0, 5, 10):
            expected.encode_images(images[start : start + 5])
    gradients(clip, images, tokens, 5)
    torch.testing.assert_close(norm.running_mean, expected.net.visual.bn1.running_mean)
    assert int(norm.num_batches_tracked) == int(before["visual.bn1.num_batches_tracked"]) + 3
    assert norm.momentum == pytest.approx(0.1)


def test_what_is_left_out_at_random_is_left_out_in_both_passes():
    clip, (images, tokens) = transformer(patch_dropout=0.5), batch()
    torch.manual_seed(5)
    _, first = gradients(clip, images, tokens, 13)
    torch.manual_seed(5)
    _, whole = gradients(clip, images, tokens)
    after = torch.get_rng_state()
    for name, gradient in whole.items():
        torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-6)
    torch.manual_seed(5)
    gradients(clip, images, tokens, 13)
    assert torch.equal(torch.get_rng_state(), after), "and draws go on as after one pass"
