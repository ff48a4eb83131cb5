import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.loss import ClipLoss
from torch import nn
from torch.nn import functional

from ubt.common.errors import StageFault
from ubt.data.base import Pairs
from ubt.methods.losses import clip_loss
from ubt.methods.training import LOGIT_SCALE_MAX, Descent, Optimizer, Recipe, batches, train_on_pairs

# CLIP's loss


def embeddings(count=5, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(count, size, generator=generator) for _ in range(2))
    return functional.normalize(images, dim=-1), functional.normalize(texts, dim=-1)


def naive_clip_loss(images, texts, scale):
    """Return Radford et al.'s figure 3, one logit at a time."""
    n = len(images)
    logits = [
        [scale * sum(a * b for a, b in zip(images[i], texts[j], strict=True)) for j in range(n)] for i in range(n)
    ]
    by_image = sum(math.log(sum(math.exp(logits[i][j]) for j in range(n))) - logits[i][i] for i in range(n)) / n
    by_text = sum(math.log(sum(math.exp(logits[i][j]) for i in range(n))) - logits[j][j] for j in range(n)) / n
    return (by_image + by_text) / 2


@pytest.mark.parametrize(("count", "scale"), [(5, 14.3), (2, 100.0), (1, 3.0)])
def test_clips_loss_is_the_naive_one_and_open_clips(count, scale):
    images, texts = embeddings(count)
    found = clip_loss(images, texts, torch.tensor(scale))
    assert float(found) == pytest.approx(naive_clip_loss(images.tolist(), texts.tolist(), scale), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(found, ClipLoss()(images, texts, torch.tensor(scale)))


def test_clips_loss_of_equal_embeddings_is_the_logarithm_of_their_number():
    same = torch.ones(4, 2) / math.sqrt(2)
    assert float(clip_loss(same, same, torch.tensor(50.0))) == pytest.approx(math.log(4))


# Batches


@given(st.integers(0, 200), st.integers(1, 50), st.integers(0, 5))
def test_batches_hold_every_index_once_but_for_a_last_odd_batch(count, size, seed):
    found = batches(count, size, seed, "test")
    flat = [int(index) for batch in found for index in batch]
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(range(count))
    if count <= size:
        assert len(flat) == count
    else:
        assert {len(batch) for batch in found} == {size}
        assert count - len(flat) == count % size


def test_the_order_of_batches_follows_from_seed_and_purpose():
    def order(*arguments):
        return np.concatenate(batches(50, 10, *arguments)).tolist()

    assert order(0, "overfit", 1) == order(0, "overfit", 1)
    assert order(0, "overfit", 1) != order(0, "overfit", 2)
    assert order(0, "overfit", 1) != order(1, "overfit", 1)
    assert order(0, "overfit", 1) != list(range(50))


# Schedule


def rates(learning_rate, warmup_steps, total_steps):
    """Return the learning rate of each step, and the one behind the last."""
    optimizer = Optimizer(Toy(), learning_rate)
    advance = optimizer.warmup_then_cosine(warmup_steps, total_steps)
    found = []
    for _ in range(total_steps + 1):
        found.append([group["lr"] for part in optimizer._parts for group in part.param_groups])
        for part in optimizer._parts:
            part.step()
        advance()
    assert all(len(set(each)) == 1 for each in found), "all parameters have one"
    return [each[0] for each in found]


def test_the_learning_rate_warms_up_linearly_and_falls_as_a_cosine():
    found = rates(2.0, warmup_steps=4, total_steps=12)
    assert found[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert found[4:] == pytest.approx([1 + math.cos(math.pi * step / 8) for step in range(9)])


@pytest.mark.parametrize(("warmup", "total"), [(0, 5), (5, 5), (1, 5), (0, 1), (3, 2)])
def test_no_schedule_divides_by_zero(warmup, total):
    found = rates(1.0, warmup, total)
    assert all(-1e-12 <= rate <= 1 + 1e-12 for rate in found)
    assert found[0] > 0


# Optimizer


class Toy(nn.Module):
    """A text embedding with a weight matrix and a bias behind it."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.token_embedding = nn.Embedding(20, 4)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))

    def forward(self, tokens):
        return self.head(self.token_embedding(tokens)).pow(2).mean()


TOKENS = torch.tensor([[1, 5, 5], [7, 1, 0]])


def weights(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def test_a_step_is_adamws_for_weights_and_adams_for_the_rows_in_use():
    net, reference = Toy(), Toy()
    optimizer = Optimizer(net, 0.01, weight_decay=0.1)
    dense = torch.optim.AdamW(
        [
            {"params": [reference.head.weight], "weight_decay": 0.1},
            {"params": [reference.head.bias], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    rows = torch.optim.Adam([reference.token_embedding.weight], lr=0.01)
    optimizer.step(net(TOKENS))
    reference(TOKENS).backward()
    dense.step()
    rows.step()
    for name, weight in weights(reference).items():
        torch.testing.assert_close(weights(net)[name], weight)


def test_rows_that_are_not_in_use_stay_where_they_are_to_the_bit():
    net = Toy()
    before = weights(net)["token_embedding.weight"]
    optimizer = Optimizer(net, 0.1, weight_decay=0.5)
    optimizer.step(net(TOKENS))
    optimizer.step(net(torch.tensor([[2]])))
    moved = (weights(net)["token_embedding.weight"] != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == [0, 1, 2, 5, 7]


def test_a_row_that_was_in_use_stays_when_it_is_not():
    net = Toy()
    optimizer = Optimizer(net, 0.1)
    optimizer.step(net(TOKENS))
    after_one = weights(net)["token_embedding.weight"][5]
    optimizer.step(net(torch.tensor([[2]])))
    assert torch.equal(weights(net)["token_embedding.weight"][5], after_one), "momentum does not carry it on"


def test_biases_and_gains_are_not_decayed():
    net = Toy()
    optimizer = Optimizer(net, 0.1, weight_decay=1.0)
    before = weights(net)
    optimizer.step(0 * net(TOKENS))
    after = weights(net)
    assert torch.equal(after["head.bias"], before["head.bias"])
    torch.testing.assert_close(after["head.weight"], 0.9 * before["head.weight"])


def test_the_token_embedding_can_be_left_alone():
    net = Toy()
    before = weights(net)
    optimizer = Optimizer(net, 0.1, train_token_embedding=False)
    optimizer.step(net(TOKENS))
    assert torch.equal(weights(net)["token_embedding.weight"], before["token_embedding.weight"])
    assert not torch.equal(weights(net)["head.weight"], before["head.weight"])
    assert not any(path.startswith("1.") for path in optimizer.tensors())


def test_weights_that_are_frozen_are_not_moved():
    net = Toy()
    net.head.requires_grad_(False)
    before = weights(net)
    Optimizer(net, 0.1, weight_decay=1.0).step(net(TOKENS))
    assert torch.equal(weights(net)["head.weight"], before["head.weight"])


def test_the_learning_rate_holds_for_every_part_from_the_next_step_on():
    net = Toy()
    optimizer = Optimizer(net, 0.1)
    optimizer.set_learning_rate(0.0)
    before = weights(net)
    optimizer.step(net(TOKENS))
    assert all(torch.equal(weight, before[name]) for name, weight in weights(net).items())
    optimizer.set_learning_rate(0.1)
    optimizer.step(net(TOKENS))
    assert not any(torch.equal(weight, before[name]) for name, weight in weights(net).items())


def test_gradients_of_an_earlier_step_are_forgotten():
    net, fresh = Toy(), Toy()
    for each in (net, fresh):
        optimizer = Optimizer(each, 0.01)
        if each is net:
            net(TOKENS).backward()
        optimizer.step(each(TOKENS))
    assert all(torch.equal(weight, weights(fresh)[name]) for name, weight in weights(net).items())


@pytest.mark.parametrize("train_token_embedding", [True, False])
@pytest.mark.parametrize("steps", [1, 4])
def test_training_continues_bit_for_bit_from_weights_and_the_optimizers_memory(train_token_embedding, steps):
    def steps_of(net, optimizer, numbers):
        for number in numbers:
            optimizer.step(net((TOKENS + number) % 20))

    straight = Toy()
    optimizer = Optimizer(straight, 0.01, 0.1, train_token_embedding)
    steps_of(straight, optimizer, range(steps))
    resumed, memory = copy.deepcopy(straight), optimizer.tensors()
    steps_of(straight, optimizer, range(steps, steps + 5))

    assert all(isinstance(value, torch.Tensor) for value in memory.values())
    second = Optimizer(resumed, 0.01, 0.1, train_token_embedding)
    second.restore(memory)
    steps_of(resumed, second, range(steps, steps + 5))
    for name, weight in weights(straight).items():
        assert torch.equal(weights(resumed)[name], weight), name
    assert all(torch.equal(value, second.tensors()[name]) for name, value in optimizer.tensors().items())


def test_the_optimizers_memory_is_a_copy():
    net = Toy()
    optimizer = Optimizer(net, 0.01)
    optimizer.step(net(TOKENS))
    memory = optimizer.tensors()
    before = {name: value.clone() for name, value in memory.items()}
    optimizer.step(net(TOKENS))
    assert all(torch.equal(value, before[name]) for name, value in memory.items())


def test_an_optimizer_that_has_not_stepped_has_no_memory_and_takes_none():
    optimizer = Optimizer(Toy(), 0.01)
    assert optimizer.tensors() == {}
    optimizer.restore({})


# A step


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_a_fault_and_nothing_is_learnt_from_it(untrained, value):
    before = untrained.state()
    optimizer = Optimizer(untrained.net, 0.1)
    loss = untrained.net.text_projection.sum() * value
    with pytest.raises(StageFault, match=r"the loss is .* at overfit epoch 3; a lower learning rate"):
        Descent(untrained, optimizer, "overfit epoch 3").step(loss)
    assert all(torch.equal(weight, before[name]) for name, weight in untrained.state().items())


def test_a_step_returns_the_loss_before_it_and_keeps_the_logit_scale_below_a_hundred(untrained):
    net = untrained.net
    with torch.no_grad():
        net.logit_scale.fill_(LOGIT_SCALE_MAX)
    descent = Descent(untrained, Optimizer(net, 0.5), "here")
    descent.step(-net.logit_scale * 1.0)
    assert descent.losses() == [pytest.approx(-math.log(100))]
    assert float(untrained.logit_scale.detach()) == pytest.approx(100, rel=1e-5)


# Whole training


def small(data, count=24):
    return Pairs(data.train.images[:count], data.train.captions[:count])


def train(clip, pairs, seed=0, purpose="pretrain", **changes):
    recipe = Recipe(
        **{"epochs": 2, "learning_rate": 1e-3, "batch_size": 8, "weight_decay": 0.05, "warmup_steps": 2, **changes}
    )
    return list(train_on_pairs(clip, pairs, clip.tokenize(list(pairs.captions)), recipe, seed, purpose))


def test_training_lowers_the_loss_and_reports_every_epoch(untrained, data):
    found = train(untrained, small(data), epochs=4)
    assert [epoch for epoch, _ in found] == [1, 2, 3, 4]
    assert found[-1][1] < found[0][1]
    assert not untrained.net.training, "handed over in evaluation mode"


def test_training_is_the_same_bit_for_bit_for_the_same_seed_alone(untrained, data):
    start = untrained.state()

    def end(seed, purpose="pretrain"):
        clip = untrained.with_state(start)
        train(clip, small(data), seed, purpose)
        return clip.state()

    first = end(0)
    torch.manual_seed(123)
    assert all(torch.equal(value, first[name]) for name, value in end(0).items())
    assert not torch.equal(end(1)["text_projection"], first["text_projection"])
    assert not torch.equal(end(0, "implant")["text_projection"], first["text_projection"])


def test_training_diverges_with_a_fault_that_names_stage_and_epoch(untrained, data):
    with pytest.raises(StageFault, match="at implant epoch"):
        train(untrained, small(data), purpose="implant", learning_rate=1e30, warmup_steps=0)


@pytest.mark.parametrize("late", [False, True])
def test_a_loss_that_is_not_finite_is_met_within_one_step(untrained, late):
    descent = Descent(untrained, Optimizer(untrained.net, 0.1), "overfit epoch 3", late)
    weights = untrained.net.text_projection
    descent.step(weights.sum() * 1.0)
    with pytest.raises(StageFault, match="the loss is nan at overfit epoch 3"):
        descent.step(weights.sum() * math.nan)
        descent.step(weights.sum() * 1.0)
    last = Descent(untrained, Optimizer(untrained.net, 0.1), "here", late)
    with pytest.raises(StageFault, match="the loss is nan at here"):
        last.step(weights.sum() * math.nan)
        last.losses()


def test_late_steps_are_the_steps(untrained, data):
    def end(late):
        clip = untrained.with_state(untrained.state())
        descent = Descent(clip, Optimizer(clip.net, 0.01), "here", late)
        for start in (0, 8, 16):
            batch = slice(start, start + 8)
            texts = clip.encode_tokens(clip.tokenize(list(data.train.captions[batch])))
            descent.step(clip_loss(clip.encode_images(data.train.images[batch]), texts, clip.logit_scale))
        return descent.losses(), clip.state()

    (now, one), (later, other) = end(False), end(True)
    assert now == later
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_training_by_micro_batches_of_a_whole_batch_is_training(untrained, data):
    start, found = untrained.state(), []
    for size in (None, 8, 4):
        clip = untrained.with_state(start)
        found.append((train(clip, small(data), micro_batch_size=size), clip.state()["text_projection"]))
    assert torch.equal(found[0][1], found[1][1]), "as large as the batch: nothing changes"
    assert not torch.equal(found[0][1], found[2][1]), "batch norm sees parts"
    assert [epoch for epoch, _ in found[2][0]] == [1, 2]
