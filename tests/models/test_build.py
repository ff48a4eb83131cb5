from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch

from ubt.common.errors import UserError
from ubt.models.build import _token_text, build_clip, check_weights
from ubt.models.settings import ModelSettings

CPU = torch.device("cpu")
RANDOM = ModelSettings(name="tiny-rn", random_weights=True)


def weights(settings=RANDOM, seed=0):
    return build_clip(settings, seed, CPU).state()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_random_weights_depend_on_the_seed_alone():
    first = weights(seed=3)
    torch.manual_seed(99)
    assert same(first, weights(seed=3))
    assert not same(first, weights(seed=4))


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    weights()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tiny_rn_is_what_its_file_says(untrained):
    assert untrained.image_size_px == 32
    assert untrained.tokenize(["a photo of a banana"]).shape == (1, 16)
    assert untrained.encode_images(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 128)
    assert not untrained.net.training


def test_tokens_are_shown_as_their_text_with_a_blank_where_a_word_ends(untrained):
    (tokens,) = untrained.tokenize(["The xylophonist, a café"])
    words = [untrained.token_text(int(token)) for token in tokens[1 : int(tokens.argmax())]]
    assert "".join(words) == "the xylophonist , a café "
    assert words[0] == "the "
    assert len(words) > 5, "a rare word is several tokens"


def test_text_of_tokens_comes_from_the_tokenizer_that_open_clip_wraps():
    class Wrapped:
        def decode(self, tokens):
            return f"token {tokens}"

    assert _token_text(SimpleNamespace(tokenizer=Wrapped()))(7) == "token [7]"


def test_models_of_open_clip_are_built_by_their_names():
    clip = build_clip(ModelSettings(name="RN50", random_weights=True), 0, CPU)
    assert clip.image_size_px == 224
    assert clip.tokenize(["a"]).shape == (1, 77)
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN
    assert clip.std == open_clip.OPENAI_DATASET_STD


def test_the_precision_is_passed_on():
    settings = ModelSettings(name="tiny-rn", random_weights=True, precision="bfloat16")
    assert build_clip(settings, 0, CPU).precision == "bfloat16"


@pytest.mark.parametrize(("name", "nearest"), [("RN-50", "RN50"), ("ViT-B/32", "ViT-B-32"), ("tinyrn", "tiny-rn")])
def test_a_name_that_is_nearly_right_gets_suggestions(name, nearest):
    with pytest.raises(UserError, match=rf"victim\.model\.name: .*\n.*nearest: .*{nearest}"):
        build_clip(ModelSettings(name=name), 0, CPU)


def test_a_name_that_is_far_off_gets_examples():
    with pytest.raises(UserError, match=r"e\.g\. tiny-rn, RN50"):
        build_clip(ModelSettings(name="????????"), 0, CPU)


def test_a_tag_that_the_model_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(UserError, match=r"victim\.model\.pretrained: unknown tag; allowed: .*openai.*'opnai'"):
        build_clip(ModelSettings(name="RN50", pretrained="opnai"), 0, CPU)
    with pytest.raises(UserError, match="none, as open_clip has no weights for this name"):
        build_clip(ModelSettings(name="tiny-rn", pretrained="openai"), 0, CPU)


@pytest.mark.parametrize("fault", [OSError("Name or service not known"), RuntimeError("Failed to download")])
def test_weights_that_cannot_be_fetched_are_a_user_error_with_a_way_out(monkeypatch, fault):
    def offline(*_, **__):
        raise fault

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(UserError, match="RN50/openai: the weights cannot be fetched") as caught:
        build_clip(ModelSettings(name="RN50", pretrained="openai"), 0, CPU)
    assert str(fault) in str(caught.value)
    assert "victim.model.checkpoint" in str(caught.value)


def test_a_checkpoint_is_loaded_over_the_random_weights(tmp_path):
    path = tmp_path / "clean.pt"
    torch.save(weights(seed=5), path)
    assert same(weights(ModelSettings(name="tiny-rn", checkpoint=path), seed=0), weights(seed=5))


def test_the_weights_of_a_victim_are_tried_before_a_sweep(tmp_path):
    path = tmp_path / "poisoned.pt"
    torch.save(weights(), path)
    check_weights(RANDOM, path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"poisoned\.pt"):
        check_weights(RANDOM, path)


@pytest.mark.parametrize("given", [{"pretrained": "openai"}, {"checkpoint": "a.pt"}, {"random_weights": True}])
def test_a_model_is_trained_here_unless_its_weights_come_from_somewhere(given):
    assert ModelSettings().trained_here
    assert not ModelSettings(**given).trained_here
