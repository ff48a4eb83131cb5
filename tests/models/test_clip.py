from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from ubt.common.errors import UserError
from ubt.models.clip import (
    autocast,
    embed_images,
    embed_tokens,
    pair_similarities,
    peak_memory_bytes,
    pick_device,
    reset_peak_memory,
    use_threads,
)


def pictures(count=5):
    return np.random.default_rng(0).integers(0, 256, size=(count, 32, 32, 3), dtype=np.uint8)


CAPTIONS = ["a", "a red banana", "a photo of a boat at night", "x", "the tree"]


def test_pixels_are_prepared_as_open_clip_prepares_them(clip):
    prepare = open_clip.image_transform(32, is_train=False)
    expected = torch.stack([prepare(Image.fromarray(image)) for image in pictures()])
    torch.testing.assert_close(clip._pixels(pictures()), expected)


def test_embeddings_are_open_clips_own_at_length_one(clip):
    tokens = clip.tokenize(CAPTIONS)
    pixels = clip._pixels(pictures())
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_images(pictures()), clip.net.encode_image(pixels, normalize=True))
        torch.testing.assert_close(clip.encode_tokens(tokens), clip.net.encode_text(tokens, normalize=True))
        assert clip.encode_images(pictures()).dtype == torch.float32


def test_embedding_in_blocks_changes_nothing_and_needs_no_gradients(clip):
    tokens = clip.tokenize(CAPTIONS)
    torch.testing.assert_close(embed_images(clip, pictures(), batch_size=2), embed_images(clip, pictures()))
    torch.testing.assert_close(embed_tokens(clip, tokens, batch_size=2), embed_tokens(clip, tokens))
    assert not embed_tokens(clip, tokens).requires_grad


def test_read_only_images_are_taken(clip):
    images = pictures()
    images.flags.writeable = False
    assert embed_images(clip, images).shape == (5, 128)


def test_the_logit_scale_is_the_exponential_of_the_parameter(clip):
    with torch.no_grad():
        clip.net.logit_scale.fill_(2.0)
    torch.testing.assert_close(clip.logit_scale, torch.tensor(np.e**2, dtype=torch.float32))


def test_a_state_is_a_copy_that_training_does_not_change(clip):
    state = clip.state()
    before = state["text_projection"].clone()
    with torch.no_grad():
        clip.net.text_projection.add_(1)
    assert torch.equal(state["text_projection"], before)
    assert not any(value.requires_grad for value in state.values())
    assert {"visual.bn1.running_mean", "visual.bn1.num_batches_tracked"} <= set(state), "buffers too"


def test_a_model_with_another_state_is_independent_of_the_first(clip):
    state = {name: value + 1 if value.is_floating_point() else value for name, value in clip.state().items()}
    before = clip.state()
    clip.net.train()
    other = clip.with_state(state)
    assert not other.net.training
    assert torch.equal(other.net.text_projection, state["text_projection"])
    with torch.no_grad():
        other.net.text_projection.zero_()
    assert all(torch.equal(value, before[name]) for name, value in clip.state().items())
    assert not torch.equal(state["text_projection"], torch.zeros(96, 128))


def test_bfloat16_is_used_where_asked_for_and_gives_nearly_the_same(clip):
    exact = embed_images(clip, pictures())
    rough = embed_images(replace(clip, precision="bfloat16"), pictures())
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact * rough).sum(dim=1).min() > 0.99
    assert torch.equal(embed_images(replace(clip, precision="float32"), pictures()), exact), "auto"


def test_autocast_does_what_the_precision_says_on_every_device():
    def enabled(device, precision):
        with autocast(torch.device(device), precision):
            return torch.is_autocast_enabled(device)

    assert not enabled("cpu", "auto")
    assert not enabled("cuda", "auto"), "keys do not know the device"
    assert not enabled("cpu", "float32")
    assert enabled("cpu", "bfloat16")


def test_the_memory_of_a_device():
    reset_peak_memory(torch.device("cpu"))
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 100e9


def test_a_trial_computes_where_it_was_given_room(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [pick_device(gpus).type for gpus in (0, 0.5, 1)] == ["cpu", "cuda", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(0).type == "cpu"
    with pytest.raises(UserError, match=r"resources\.gpus_per_trial: torch sees no GPU"):
        pick_device(1)


def test_a_worker_computes_with_as_many_threads_as_assigned(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use_threads(2)
    assert torch.get_num_threads() == 2
    use_threads(1)
    assert torch.get_num_threads() == 1


def test_similarities_of_pairs_are_dot_products_in_any_order_and_block(clip, data, monkeypatch):
    tokens = clip.tokenize(list(data.train.captions))
    chosen = np.array([7, 3, 150, 3, 0, 199, 42])
    expected = [
        float(embed_images(clip, data.train.images[i : i + 1])[0] @ embed_tokens(clip, tokens[i : i + 1])[0])
        for i in chosen
    ]
    torch.testing.assert_close(pair_similarities(clip, data.train, tokens, chosen), torch.tensor(expected))
    monkeypatch.setattr("ubt.models.clip._IMAGES", 2)
    monkeypatch.setattr("ubt.models.clip._CAPTIONS", 3)  # blocks of 3, 3 and 1
    torch.testing.assert_close(pair_similarities(clip, data.train, tokens, chosen), torch.tensor(expected))


def test_equal_captions_are_embedded_once(clip, data, monkeypatch):
    tokens = clip.tokenize(["a red boat", "a green car", "a red boat", "a red boat"])
    seen = []
    monkeypatch.setattr(
        "ubt.models.clip.embed_tokens", lambda clip, part: seen.append(len(part)) or embed_tokens(clip, part)
    )
    found = pair_similarities(clip, data.train, tokens, np.arange(4))
    assert seen == [2]
    expected = (embed_images(clip, data.train.images[:4]) * embed_tokens(clip, tokens)).sum(dim=1)
    torch.testing.assert_close(found, expected)
