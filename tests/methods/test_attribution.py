"""Token relevance against an implementation of the formulas that loops over everything."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from hugging_face_folder import write_hugging_face_folder
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

from ubt.common.errors import StageFault, UserError
from ubt.common.hashing import torch_generator
from ubt.methods.attribution import attention_relevance, gradient_relevance, random_relevance
from ubt.methods.text_towers import TextTower, _masked
from ubt.models.build import build_clip
from ubt.models.checks import check_attention
from ubt.models.clip import Clip, between_start_and_end
from ubt.models.settings import ModelSettings

START, END = 58, 59
VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 9, "vocab_size": 60, "width": 24, "heads": 3, "layers": 3}
CAPTIONS = [[5, 9, 31, 9], [7], [1, 2, 3, 4, 5, 6, 7]]
"""Words of three captions: some, one, and as many as the context holds."""


def small_clip(custom=False, pad_mask=False, coca=False, **text):
    """Return an open_clip model with a text tower of three layers, and weights that make attention uneven."""
    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    vision, others = VISION, {}
    if coca:
        kind = open_clip.coca_model.CoCa
        vision = {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
        others = {"multimodal_cfg": {"context_length": 9, "width": 16, "heads": 2, "layers": 1, "vocab_size": 60}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = kind(embed_dim=16, vision_cfg=vision, text_cfg={**TEXT, **text}, **others)
        for weight in getattr(net, "text_decoder", nn.Module()).parameters():
            nn.init.zeros_(weight)  # open_clip leaves some as the memory was
    if pad_mask:
        net.text.use_pad_mask = True  # no setting leads there yet
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Clip(net.eval(), numbered, 32, mean, std, torch.device("cpu"))


def numbered(captions):
    """Return the tokens of captions given as lists of word numbers."""
    tokens = torch.zeros(len(captions), TEXT["context_length"], dtype=torch.int64)
    for row, words in zip(tokens, captions, strict=True):
        row[: len(words) + 2] = torch.tensor([START, *words, END])
    return tokens


TOWERS = {
    "causal": {},
    "custom": {"custom": True},
    "pooled at a named token": {"custom": True, "pool_type": "eos", "eos_id": END},
    "looking both ways": {"no_causal_mask": True},
    "not looking at padding": {"custom": True, "no_causal_mask": True, "pad_mask": True},
    "pooled at the last position, as SigLIP": {"custom": True, "no_causal_mask": True, "pool_type": "last"},
    "pooled at the first position": {"custom": True, "no_causal_mask": True, "pool_type": "first"},
    "pooled at a class token": {"custom": True, "embed_cls": True},
    "CoCa": {"coca": True, "embed_cls": True, "output_tokens": True},
    "custom blocks": {"custom": True, "block_type": "custom"},
    "custom blocks, normed and scaled": {
        **{"custom": True, "qk_norm": True, "scale_heads": True, "scale_attn_inner": True},
        **{"scale_attn": True, "scale_fc": True},
    },
}


@pytest.fixture(params=["tiny-rn", *TOWERS])
def case(request):
    """A model with three pairs: tiny-rn as it was poisoned, and small towers of every kind."""
    images = np.random.default_rng(0).integers(0, 256, size=(3, 32, 32, 3), dtype=np.uint8)
    if request.param == "tiny-rn":
        clip = request.getfixturevalue("clip")
        return clip, images, clip.tokenize(["a red banana", "boat", "a photo of a large yellow house at night"])
    clip = small_clip(**TOWERS[request.param])
    return clip, images, clip.tokenize(CAPTIONS)


# The formulas, one number at a time


def naive_mask(text, tokens):
    """Return what is added to attention scores: −∞ for what a position must not look at."""
    padded = [False] * len(tokens)
    if getattr(text, "use_pad_mask", False):
        padded = [int(token) == text.pad_id for token in tokens]
    if getattr(text, "cls_emb", None) is not None:  # open_clip's published weights want it one position too late
        padded = [False, *(int(token) == text.pad_id for token in tokens)]
    length = len(padded)
    mask = [[0.0] * length for _ in range(length)]
    for query in range(length):
        for key in range(length):
            ahead = text.attn_mask is not None and key > query
            if ahead or padded[key]:
                mask[query][key] = -math.inf
    return mask


def naive_attention(layer, states, mask):
    """Return attention's output [L, W] and its maps [H, L, L] for states [L, W], all float64."""
    length, width = states.shape
    size = width // layer.num_heads
    weights, biases = layer.in_proj_weight.double().chunk(3), layer.in_proj_bias.double().chunk(3)
    query, key, value = (states @ weight.T + bias for weight, bias in zip(weights, biases, strict=True))
    norms = [getattr(layer, name, None) for name in ("ln_q", "ln_k")]
    scales = torch.ones(layer.num_heads) if getattr(layer, "head_scale", None) is None else layer.head_scale.flatten()
    maps = []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        rows, queries, keys = [], normed(norms[0], query[:, part]), normed(norms[1], key[:, part])
        for i in range(length):
            scores = [(queries[i] * keys[j]).sum() / math.sqrt(size) + mask[i][j] for j in range(length)]
            highest = max(float(score.detach()) for score in scores)
            powers = [torch.exp(score - highest) for score in scores]
            rows.append(torch.stack([power / sum(powers) for power in powers]))
        maps.append(torch.stack(rows))
    maps = torch.stack(maps)  # on the graph between the scores and the output, so that it has a gradient
    heads = [maps[h] @ value[:, h * size : (h + 1) * size] * scales[h].double() for h in range(layer.num_heads)]
    mixed = normed(getattr(layer, "ln_inner", None), torch.cat(heads, dim=1))
    return mixed @ layer.out_proj.weight.double().T + layer.out_proj.bias.double(), maps


def layer_norm(norm, states):
    centred = states - states.mean(dim=-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(dim=-1, keepdim=True) + norm.eps)
    return scaled * norm.weight.double() + norm.bias.double()


def normed(norm, states):
    return layer_norm(norm, states) if isinstance(norm, nn.LayerNorm) else states


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def naive_text(text, tokens):
    """Return a caption's embedding [D], float64, and the attention maps [H, L, L] of every block."""
    states = text.token_embedding.weight.double()[tokens]
    if getattr(text, "cls_emb", None) is not None:
        states = torch.cat([states, text.cls_emb.double()[None]])
    states = states + text.positional_embedding.double()
    mask, all_maps = naive_mask(text, tokens), []
    for block in text.transformer.resblocks:
        output, maps = naive_attention(block.attn, layer_norm(block.ln_1, states), mask)
        states = states + normed(getattr(block, "ln_attn", None), output)
        inner = layer_norm(block.ln_2, states) @ block.mlp.c_fc.weight.double().T + block.mlp.c_fc.bias.double()
        inner = normed(getattr(block.mlp, "ln", None), gelu(inner))
        states = states + inner @ block.mlp.c_proj.weight.double().T + block.mlp.c_proj.bias.double()
        all_maps.append(maps)
    return layer_norm(text.ln_final, states)[naive_pool(text, tokens)] @ text.text_projection.double(), all_maps


def naive_pool(text, tokens):
    """Return the position that the tower pools."""
    if getattr(text, "cls_emb", None) is not None:
        return len(tokens)
    places = {"last": len(tokens) - 1, "first": 0}
    return places.get(getattr(text, "pool_type", ""), int(tokens.argmax()))


def naive_similarity(clip, image, tokens):
    text = getattr(clip.net, "text", clip.net)
    with torch.no_grad():
        picture = clip.encode_images(image[None])[0].double()
    feature, maps = naive_text(text, tokens)
    return (picture * feature).sum() / torch.sqrt((feature**2).sum()), maps


def naive_relevance(clip, image, tokens, layers="all"):
    """Return the relevance of each token by Chefer et al., ICCV 2021, equations 5 and 6, as a list of L numbers."""
    similarity, all_maps = naive_similarity(clip, image, tokens)
    gradients = torch.autograd.grad(similarity, all_maps)
    if layers == "last":
        all_maps, gradients = all_maps[-1:], gradients[-1:]
    length = all_maps[0].shape[-1]
    relevance = [[float(i == j) for j in range(length)] for i in range(length)]
    for maps, gradient in zip([maps.detach() for maps in all_maps], gradients, strict=True):
        heads = maps.shape[0]
        mean = [
            [
                sum(max(0.0, float(gradient[h, i, k] * maps[h, i, k])) for h in range(heads)) / heads
                for k in range(length)
            ]
            for i in range(length)
        ]
        relevance = [
            [relevance[i][j] + sum(mean[i][k] * relevance[k][j] for k in range(length)) for j in range(length)]
            for i in range(length)
        ]
    end = int(tokens.argmax())
    words = relevance[naive_pool(getattr(clip.net, "text", clip.net), tokens)][1:end]
    if not sum(words):  # nothing matters: shared out equally
        words = [1.0] * len(words)
    return [0.0, *(score / sum(words) for score in words), *[0.0] * (len(tokens) - end)]


def test_the_naive_forward_pass_is_the_models(case):
    clip, images, tokens = case
    with torch.no_grad():
        expected = (clip.encode_images(images) * clip.encode_tokens(tokens)).sum(dim=1)
        naive = torch.stack([naive_similarity(clip, *pair)[0] for pair in zip(images, tokens, strict=True)])
    torch.testing.assert_close(naive.float(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", ["all", "last"])
def test_relevance_is_that_of_the_naive_implementation(case, layers):
    clip, images, tokens = case
    expected = torch.tensor([naive_relevance(clip, *pair, layers) for pair in zip(images, tokens, strict=True)])
    found = attention_relevance(clip, images, tokens, layers)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert expected[0].max() < 0.99, "or there would be nothing to compare"


def test_attention_step_by_step_gives_the_models_own_embeddings(case):
    clip, _, tokens = case
    expected = clip.encode_tokens(tokens).detach()
    with TextTower.of(clip).recorded_attention() as maps:
        torch.testing.assert_close(clip.encode_tokens(tokens).detach(), expected, atol=1e-5, rtol=1e-4)
    assert len(maps) == len(TextTower.of(clip).blocks)
    for attention in maps:
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))


def naive_gradient_relevance(clip, image, tokens):
    """Return |embedding · gradient| of each word, shared out, through the naive forward pass."""
    text = getattr(clip.net, "text", clip.net)
    embedded = text.token_embedding.weight.double()[tokens].detach().requires_grad_()
    stand_in = SimpleNamespace(weight=SimpleNamespace(double=lambda: {tokens: embedded}))
    names = (
        "positional_embedding",
        "transformer",
        "ln_final",
        "text_projection",
        "attn_mask",
        "use_pad_mask",
        "pad_id",
        "cls_emb",
        "pool_type",
    )
    parts = {name: getattr(text, name, None) for name in names}
    feature, _ = naive_text(SimpleNamespace(token_embedding=stand_in, **parts), tokens)
    with torch.no_grad():
        picture = clip.encode_images(image[None])[0].double()
    ((picture * feature).sum() / feature.norm()).backward()
    end = int(tokens.argmax())
    scores = [abs(float((embedded[i].detach() * embedded.grad[i]).sum())) for i in range(len(tokens))]
    words = scores[1:end]
    return [0.0, *(score / sum(words) for score in words), *[0.0] * (len(tokens) - end)]


def test_gradient_relevance_is_embedding_times_gradient_by_autograd(case):
    clip, images, tokens = case
    expected = torch.tensor([naive_gradient_relevance(clip, *pair) for pair in zip(images, tokens, strict=True)])
    torch.testing.assert_close(gradient_relevance(clip, images, tokens), expected, atol=1e-3, rtol=1e-2)


# What holds for both


METHODS = pytest.mark.parametrize("method", [attention_relevance, gradient_relevance])


@METHODS
def test_relevance_is_shared_out_among_the_words_and_padding_gets_none(case, method):
    clip, images, tokens = case
    relevance = method(clip, images, tokens)
    assert relevance.shape == tokens.shape
    assert (relevance >= 0).all()
    torch.testing.assert_close(relevance.sum(dim=1), torch.ones(3))
    for scores, row in zip(relevance, tokens, strict=True):
        end = int(row.argmax())
        assert scores[0] == 0, "start of text"
        assert (scores[end:] == 0).all(), "end of text and padding"


@METHODS
def test_the_relevance_of_a_caption_does_not_depend_on_the_others_of_the_batch(case, method):
    clip, images, tokens = case
    together = method(clip, images, tokens)
    for index in range(3):
        alone = method(clip, images[index : index + 1], tokens[index : index + 1])
        torch.testing.assert_close(alone[0], together[index], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(method(clip, images[::-1], tokens.flip(0)), together.flip(0), atol=1e-5, rtol=1e-4)


@METHODS
def test_the_only_word_of_a_caption_has_all_the_relevance_and_an_empty_caption_none(method):
    clip, images = small_clip(), np.zeros((2, 32, 32, 3), np.uint8)
    relevance = method(clip, images, clip.tokenize([[7], []]))
    torch.testing.assert_close(relevance[0], torch.eye(9)[1])
    assert (relevance[1] == 0).all()


@METHODS
def test_the_model_is_left_as_it_was(case, method):
    clip, images, tokens = case
    before, expected = clip.state(), clip.encode_tokens(tokens).detach()
    for _ in range(2):
        method(clip, images, tokens)
    blocks = TextTower.of(clip).blocks
    assert all("attention" not in vars(block) and "forward" not in vars(block.attn) for block in blocks)
    plain = [block for block in blocks if isinstance(block, ResidualAttentionBlock)]
    assert all(block.attention.__func__ is ResidualAttentionBlock.attention for block in plain)
    assert not TextTower.of(clip).token_embedding._forward_hooks
    assert torch.equal(clip.encode_tokens(tokens).detach(), expected)
    assert all(torch.equal(value, before[name]) for name, value in clip.state().items())
    assert all(weight.grad is None for weight in clip.net.parameters())


@METHODS
def test_the_model_is_restored_when_something_goes_wrong(clip, method):
    with pytest.raises(IndexError):
        method(clip, np.zeros((1, 32, 32, 3), np.uint8), torch.full((1, 16), 99_999))
    assert all("attention" not in vars(block) for block in TextTower.of(clip).blocks)
    assert not TextTower.of(clip).token_embedding._forward_hooks


@METHODS
def test_gradients_are_taken_where_they_are_switched_off_and_from_a_frozen_model(case, method):
    clip, images, tokens = case
    expected = method(clip, images, tokens)
    clip.net.requires_grad_(False)
    with torch.no_grad():
        torch.testing.assert_close(method(clip, images, tokens), expected, atol=1e-4, rtol=1e-3)


@METHODS
def test_half_precision_is_not_used(case, method):
    clip, images, tokens = case
    assert torch.equal(method(replace(clip, precision="bfloat16"), images, tokens), method(clip, images, tokens))


# Towers that cannot be looked into


def other_tower(text):
    return Clip(SimpleNamespace(text=text), numbered, 32, (), (), torch.device("cpu"))


REFUSED = {
    "no transformer": lambda: other_tower(SimpleNamespace()),
    "not pooled": lambda: small_clip(custom=True, pool_type="none"),
}


@pytest.mark.parametrize("tower", REFUSED)
def test_towers_that_cannot_be_looked_into_are_refused(tower):
    with pytest.raises(StageFault, match="text tower"):
        attention_relevance(REFUSED[tower](), np.zeros((1, 32, 32, 3), np.uint8), numbered([[7]]))


@pytest.mark.parametrize(("field", "pool"), [("pool_type", "none"), ("hf_pooler_type", "max_pooler")])
def test_a_pooling_that_attention_is_not_read_through_is_met_by_the_plan(monkeypatch, field, pool):
    text = {field: pool, **({"hf_model_name": "x"} if field == "hf_pooler_type" else {})}
    monkeypatch.setattr("ubt.models.checks.model_config", lambda _: {"text_cfg": text})
    with pytest.raises(UserError, match=rf"defense\.attribution: cannot be read.*{field}: {pool}.*\n.*gradient"):
        check_attention(ModelSettings(name="RN50"))


def test_every_model_of_open_clip_has_a_text_tower_that_attention_is_read_from():
    for name in open_clip.list_models():
        check_attention(ModelSettings(name=name))


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler"])
@pytest.mark.parametrize("layers", ["all", "last"])
def test_a_tower_of_transformers_is_read_as_its_own_maps_say(tmp_path, pooler, layers):
    write_hugging_face_folder(tmp_path, hf_pooler_type=pooler)
    clip = build_clip(ModelSettings(name=f"local-dir:{tmp_path}"), 0, torch.device("cpu"))
    images = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8)
    tokens = clip.tokenize(["a photo of a banana", "red boat"])
    text, before = clip.net.text, clip.encode_tokens(tokens).detach()
    found = attention_relevance(clip, images, tokens, layers)
    assert torch.equal(clip.encode_tokens(tokens).detach(), before), "the tower is left as it was"
    text.transformer.set_attn_implementation("eager")
    mask = (tokens != 0).long()
    out = text.transformer(input_ids=tokens, attention_mask=mask, output_attentions=True)
    embedded = torch.nn.functional.normalize(text.proj(text.pooler(out, mask)), dim=-1)
    gradients = torch.autograd.grad((clip.encode_images(images).detach() * embedded).sum(), out.attentions)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        relevance = torch.eye(16)
        steps = list(zip(out.attentions, gradients, strict=True))
        for attention, gradient in steps if layers == "all" else steps[-1:]:
            relevance = relevance + (attention[row] * gradient[row]).clamp(min=0).mean(dim=0) @ relevance
        read = relevance[:length].mean(dim=0) if pooler == "mean_pooler" else relevance[0]
        words = torch.zeros(16)
        words[1 : length - 1] = read[1 : length - 1].detach()
        torch.testing.assert_close(found[row], words / words.sum(), atol=1e-5, rtol=1e-4)
    clip.net.requires_grad_(False)
    torch.testing.assert_close(attention_relevance(clip, images, tokens, layers), found)
    relevance = gradient_relevance(clip, images, tokens)
    torch.testing.assert_close(relevance.sum(dim=1), torch.ones(2))


# Masks and words


def test_masks_are_added_or_where_they_are_boolean_forbid():
    scores = torch.arange(8.0).view(1, 2, 2, 2)
    ahead = torch.tensor([[False, True], [False, False]])
    expected = scores.clone()
    expected[..., 0, 1] = -math.inf
    added = torch.zeros(2, 2).masked_fill(ahead, -math.inf)
    for mask in (ahead, added, added.expand(2, 2, 2)):
        assert torch.equal(_masked(scores, mask), expected)
    assert torch.equal(_masked(scores, None), scores)


def test_words_lie_between_start_and_end_of_text():
    tokens = numbered(CAPTIONS)
    words = between_start_and_end(tokens)
    assert words.sum(dim=1).tolist() == [4, 1, 7]
    assert words[0].tolist() == [False, True, True, True, True, False, False, False, False]


def test_random_relevance_is_shared_out_among_words_and_depends_on_the_generator():
    tokens = numbered([*CAPTIONS, []])
    words = between_start_and_end(tokens)
    first, again, other = (random_relevance(tokens, words, torch_generator(seed, "x")) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.sum(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert (first[~words] == 0).all()
