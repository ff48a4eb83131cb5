"""Models in folders and on the hub, and those whose text comes from `transformers`."""

import json
import sys
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from hugging_face_folder import write_hugging_face_folder
from open_clip.push_to_hf_hub import save_for_hf
from tiny_victim import REPORT

from sweeps.study.loading import absolute, load_study
from ubt.common.errors import UserError
from ubt.engine.graph import build_pipeline
from ubt.engine.runner import run_trial
from ubt.methods.training import token_embeddings
from ubt.models import checks
from ubt.models.activation import activation_of
from ubt.models.build import build_clip, check_weights
from ubt.models.checks import check_model
from ubt.models.settings import ModelSettings, image_size_px, model_files, needs_transformers
from ubt.stages.unlearn import shorten
from ubt.testing import tiny_trial
from ubt.trials.record import State

CPU = torch.device("cpu")
CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "width": 24, "heads": 3, "layers": 1},
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)


def write_folder(folder, config=None, weights=True, safe=True):
    """Write what `open_clip.push_to_hf_hub` would upload of a small model, and return the model."""
    torch.manual_seed(3)
    net = open_clip.model.CLIP(**(config or CONFIG)).eval()
    open_clip.model.set_model_preprocess_cfg(net, {"mean": MEAN, "std": STD, "size": 32})
    save_for_hf(net, SimpleNamespace(save_pretrained=lambda _: None), config or CONFIG, folder, safe, not weights)
    return net


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "model")
    return tmp_path / "model"


def named(folder, **others):
    return ModelSettings(name=f"local-dir:{folder}", **others)


def embeddings(net):
    images = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / 0.2
    net = net.to(memory_format=torch.channels_last)
    with torch.no_grad():
        return images, torch.nn.functional.normalize(net.encode_image(pixels), dim=-1)


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_is_loaded_as_open_clip_loads_it(tmp_path, safe):
    expected = write_folder(tmp_path, safe=safe)
    clip = check_weights(named(tmp_path), None)
    assert (clip.image_size_px, clip.mean, clip.std, clip.activation) == (32, MEAN, STD, "quickgelu")
    images, features = embeddings(expected)
    assert torch.equal(clip.encode_images(images), features)
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokens = clip.tokenize(["a photo"])
    assert torch.equal(clip.encode_tokens(tokens), theirs.eval().encode_text(tokens, normalize=True))
    assert image_size_px(f"local-dir:{tmp_path}") == 32


TOWERS = {
    "CoCa": {
        "custom_text": True,
        "vision_cfg": {**CONFIG["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**CONFIG["text_cfg"], "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1},
    },
    "SigLIP": {
        "custom_text": True,
        "init_logit_bias": -10,
        "text_cfg": {**CONFIG["text_cfg"], "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    },
    "timm": {"vision_cfg": {"timm_model_name": "resnet10t", "timm_proj": "linear", "image_size": 32}},
}


@pytest.mark.parametrize("kind", TOWERS)
def test_a_study_runs_on_a_folder_with_a_model_of_any_kind(tmp_path, kind):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**CONFIG, **TOWERS[kind]}}))
    net = build_clip(named(folder, random_weights=True), 0, CPU).net
    torch.save(net.state_dict(), folder / "open_clip_pytorch_model.bin")
    trial = tiny_trial({"victim.model": {"name": f"local-dir:{folder}"}})
    record = run_trial(trial, tmp_path / "store", gates=REPORT)
    assert record.state == State.DONE, record.reason
    assert record.stages[0].stage == "load"
    assert "attribute" in [stage.stage for stage in record.stages]


def test_a_folder_may_be_moved_and_what_is_in_it_counts(tmp_path, folder):
    def key(place):
        (node, *_) = build_pipeline(tiny_trial({"victim.model": {"name": f"local-dir:{place}"}}), 0)
        assert str(place) not in json.dumps(node.settings)
        return node.key

    before = key(folder)
    drawn = build_clip(named(folder, random_weights=True), 0, CPU).net.text_projection
    moved = folder.rename(tmp_path / "moved")
    assert torch.equal(build_clip(named(moved, random_weights=True), 0, CPU).net.text_projection, drawn)
    assert key(moved) == before
    (moved / "tokenizer.json").write_text("{}")
    again = key(moved)
    write_folder(moved, {**CONFIG, "quick_gelu": False})
    assert len({before, again, key(moved)}) == 3


def test_a_folders_weights_can_be_replaced(tmp_path, folder):
    other = tmp_path / "other.pt"
    state = open_clip.model.CLIP(**CONFIG).state_dict()
    torch.save(state, other)
    clip = build_clip(named(folder, checkpoint=other), 0, CPU)
    assert torch.equal(clip.net.text_projection, state["text_projection"])
    assert not torch.equal(
        build_clip(named(folder, random_weights=True), 0, CPU).net.text_projection, state["text_projection"]
    )


def test_relative_folders_start_at_the_study(tmp_path, folder):
    (tmp_path / "study.yaml").write_text("extends: demo\nvictim: {model: {name: 'local-dir:model'}}\n")
    assert load_study(str(tmp_path / "study.yaml")).victim.model.name == f"local-dir:{folder}"
    for path in ("victim.model.name", "search.space.victim.model.name"):
        assert absolute(["RN50", "local-dir:x"], path, tmp_path) == ["RN50", f"local-dir:{tmp_path}/x"]


FAULTS = {
    "no folder": (lambda folder: folder.rename(folder.with_name("gone")), "has no open_clip_config.json"),
    "no config": (lambda folder: (folder / "open_clip_config.json").unlink(), "has no open_clip_config.json"),
    "no JSON": (lambda folder: (folder / "open_clip_config.json").write_text("{"), "does not describe a model"),
    "no model": (lambda folder: (folder / "open_clip_config.json").write_text('{"a": 1}'), "does not describe a model"),
    "a list": (lambda folder: (folder / "open_clip_config.json").write_text("[]"), "does not describe a model"),
    "empty": (
        lambda folder: (folder / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": 1, "text_cfg": 2}}'),
        "does not describe a model",
    ),
    "no weights": (lambda folder: (folder / "open_clip_model.safetensors").unlink(), "the folder holds no weights"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_holds_no_model_is_refused_before_anything_is_computed(folder, fault):
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(UserError, match=rf"victim\.model\.name: .*{message}.*\n.*open_clip_config\.json"):
        check_model(named(folder))


def test_a_folder_comes_with_its_weights(folder):
    with pytest.raises(ValueError, match="come with their weights: leave `pretrained` out"):
        named(folder, pretrained="openai")
    assert not named(folder).trained_here


def test_a_folder_is_not_looked_at_twice_unless_it_changed(folder):
    assert activation_of(named(folder)) == "quickgelu"
    config = {"model_cfg": {**CONFIG, "quick_gelu": False}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert activation_of(named(folder)) == "gelu"


# The hub


def test_a_model_on_the_hub_goes_through_open_clips_loader(folder, monkeypatch):
    copy = lambda _, filename, **__: str(folder / filename)  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", copy)
    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", lambda repo_id, filename, **_: copy(repo_id, filename))
    model = ModelSettings(name="hf-hub:somebody/something")
    check_model(model)
    clip = build_clip(model, 0, CPU)
    assert (clip.image_size_px, clip.mean, clip.activation) == (32, MEAN, "quickgelu")
    assert torch.equal(clip.net.text_projection, build_clip(named(folder), 0, CPU).net.text_projection)
    assert not model.trained_here


def test_without_a_network_a_model_on_the_hub_is_refused_with_a_way_out(monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match=r"name: cannot be fetched: Name or service.*\n.*local-dir:FOLDER"):
        check_model(ModelSettings(name="hf-hub:nobody/nothing"))


# transformers


def test_models_that_need_transformers_are_those_for_which_open_clip_asks_for_it():
    asked = set()
    for name in model_files():
        text = open_clip.get_model_config(name)["text_cfg"]
        if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "siglip" in name.lower():
            asked.add(name)
    assert {name for name in model_files() if needs_transformers(name)} == asked
    assert len(asked) == 49


@pytest.mark.parametrize("name", ["roberta-ViT-B-32", "ViT-B-16-SigLIP", "xlm-roberta-base-ViT-B-32"])
def test_the_plan_says_what_has_to_be_installed(monkeypatch, name):
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"needs the package `transformers`.*\n.*pip install 'ubt-sweeper\[transformers\]'"
    ):
        check_model(ModelSettings(name=name))
    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    check_model(ModelSettings(name=name))


def test_a_text_tower_that_cannot_be_fetched_is_a_mistake_met_before_the_first_trial(monkeypatch):
    def offline(*_, **__):
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(checks, "find_spec", lambda _: object())
    monkeypatch.setattr(open_clip, "create_model", offline)
    model = ModelSettings(name="roberta-ViT-B-32", random_weights=True)
    assert model.fetched, "so that preflight tries it"
    with pytest.raises(UserError, match=r"victim\.model: roberta-ViT-B-32: .*cannot be fetched: We couldn't connect"):
        check_weights(model, None)


def test_text_tower_and_tokenizer_of_transformers_come_from_the_folder(tmp_path):
    net = write_hugging_face_folder(tmp_path)
    clip = check_weights(named(tmp_path), None)
    tokens = clip.tokenize(["a photo of a banana"])
    assert tokens.tolist() == [[2, 4, 5, 6, 4, 7, 3, *[0] * 9]]
    assert clip.token_text(7) == "banana"
    assert torch.equal(clip.net.encode_text(tokens), net.eval().encode_text(tokens))
    assert "transformers" in sys.modules
    assert clip.words(tokens).tolist() == [[False, *[True] * 5, *[False] * 10]]
    assert token_embeddings(clip.net) == [clip.net.text.transformer.embeddings.word_embeddings]
    words = clip.words(tokens)
    words[0, 5] = False
    assert shorten(tokens, words, clip.padding).tolist() == [[2, 7, 3, *[0] * 13]]
