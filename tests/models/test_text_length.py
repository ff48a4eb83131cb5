"""Captions are looked at as far as they go: the same embeddings and gradients, from fewer positions."""

from dataclasses import replace

import open_clip
import pytest
import torch
from hugging_face_folder import write_hugging_face_folder

from ubt.common.errors import UserError
from ubt.engine.spec import of_model
from ubt.models.build import build_clip
from ubt.models.settings import ModelSettings
from ubt.models.text_length import can_be_cut, encode_cut, longest
from ubt.testing import tiny_trial

CAPTIONS = ["a", "a red banana", "a photo of a boat at night", "x"]
VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 20, "vocab_size": 60, "width": 32, "heads": 2, "layers": 2}


def tower(custom=False, **text):
    torch.manual_seed(0)
    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    return kind(embed_dim=16, vision_cfg=dict(VISION), text_cfg={**TEXT, **text}).eval().double()


def captions():
    """Return captions of 5 to 9 positions, whose end of text, 59, is the highest token."""
    tokens = torch.zeros(4, 20, dtype=torch.int64)
    for row, length in enumerate((5, 9, 7, 6)):
        tokens[row, :length] = torch.randint(1, 58, (length,), generator=torch.Generator().manual_seed(row))
        tokens[row, length - 1] = 59
    return tokens


TOWERS = {
    "open_clip's own": {},
    "its linear projection": {"proj_bias": True, "custom": True},
    "a tower of its own": {"custom": True},
    "read at a token by its number": {"custom": True, "pool_type": "eos", "eos_id": 59},
}


@pytest.mark.parametrize("kind", TOWERS)
def test_embeddings_and_gradients_of_fewer_positions_are_the_same(kind):
    net, tokens = tower(**TOWERS[kind]), captions()
    assert can_be_cut(net)
    assert longest(net, tokens) == 9
    found = {}
    for name, embed in (("whole", net.encode_text), ("cut", lambda tokens: encode_cut(net, tokens[:, :9]))):
        net.zero_grad()
        embeddings = embed(tokens)
        embeddings.square().sum().backward()
        found[name] = [embeddings.detach(), *(w.grad for w in net.parameters() if w.grad is not None)]
    for whole, cut in zip(found["whole"], found["cut"], strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}])
def test_a_tower_that_looks_at_its_padding_is_not_cut(text):
    assert not can_be_cut(tower(custom=True, **text))


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler"])
def test_a_tower_of_transformers_is_told_what_is_padding(tmp_path, pooler):
    write_hugging_face_folder(tmp_path, hf_pooler_type=pooler)
    name, cpu = f"local-dir:{tmp_path}", torch.device("cpu")
    whole, cut = (build_clip(ModelSettings(name=name, text_positions=one), 0, cpu) for one in ("all", "used"))
    tokens = whole.tokenize(["a photo of a boat", "red banana"])
    assert longest(cut.net, tokens) < tokens.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(cut.encode_tokens(tokens), whole.encode_tokens(tokens))


def test_a_model_computes_no_more_positions_than_its_captions_take(clip):
    cut, seen = replace(clip, cut_text=True), []
    clip.net.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    tokens = clip.tokenize(CAPTIONS)
    with torch.no_grad():
        torch.testing.assert_close(cut.encode_tokens(tokens), clip.encode_tokens(tokens))
        cut.encode_tokens(tokens[:1])
    assert seen == [9, 16, 3], "captions of seven words, a tower of 16 positions, and a caption of one word"


def test_it_is_part_of_the_key_and_the_default_is_not():
    trial = tiny_trial()
    assert "text_positions" not in trial.as_json()["victim"]["model"]
    assert "text_positions" not in of_model(trial)
    assert of_model(tiny_trial({"victim.model.text_positions": "used"}))["text_positions"] == "used"


def test_a_model_whose_tower_cannot_be_cut_is_refused(monkeypatch):
    monkeypatch.setattr("ubt.models.build.can_be_cut", lambda net: False)
    with pytest.raises(UserError, match="needs all of its positions"):
        build_clip(ModelSettings(text_positions="used", random_weights=True), 0, torch.device("cpu"))
