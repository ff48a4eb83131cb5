"""GELU or QuickGELU: a network computes with what its weights were trained with, or the study is refused."""

import json

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import save_file

from ubt.common.errors import UserError
from ubt.engine.graph import build_pipeline
from ubt.models import activation
from ubt.models.activation import activation_of, is_ambiguous, named_activation
from ubt.models.build import build_clip, check_pretrained_tag, check_weights
from ubt.models.checks import check_model
from ubt.models.settings import ModelSettings, model_files
from ubt.models.weight_files import activation_said_by, is_torchscript, weights_in
from ubt.testing import tiny_trial

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, size=(2, 224, 224, 3), dtype=np.uint8)
OPENAI = {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}


@pytest.fixture(scope="module")
def reference():
    """Return open_clip's own RN50 with QuickGELU, and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return open_clip.create_model("RN50", load_weights=False, force_quick_gelu=True).eval()


@pytest.fixture(scope="module")
def weights(reference, tmp_path_factory):
    """Return its weights in a file, as OpenAI's export has them but for half precision."""
    path = tmp_path_factory.mktemp("weights") / "RN50.pt"
    torch.save({**reference.state_dict(), **OPENAI}, path)
    return path


def embeddings(net):
    pixels = torch.from_numpy(IMAGES.copy()).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (net.visual.image_mean, net.visual.image_std))
    tokens = open_clip.get_tokenizer("RN50")(["a photo of a banana", "boats"])
    net = net.to(memory_format=torch.channels_last)
    with torch.no_grad():
        features = net.encode_image((pixels.float() / 255 - mean) / std), net.encode_text(tokens)
    return [torch.nn.functional.normalize(each, dim=-1) for each in features]


def same_as(net, clip):
    with torch.no_grad():
        found = clip.encode_images(IMAGES), clip.encode_tokens(clip.tokenize(["a photo of a banana", "boats"]))
    return all(torch.equal(one, other) for one, other in zip(embeddings(net), found, strict=True))


def test_openai_weights_compute_with_quickgelu_bit_for_bit_as_open_clip_forced_to(reference, weights, monkeypatch):
    state = torch.load(weights, weights_only=True)
    plain = weights.with_name("plain.pt")
    torch.save({name: value for name, value in state.items() if name not in OPENAI}, plain)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(plain))
    clip = build_clip(ModelSettings(name="RN50", pretrained="openai"), 0, CPU)
    assert clip.activation == "quickgelu"
    assert same_as(reference, clip)
    wrong = build_clip(ModelSettings(name="RN50", checkpoint=plain, activation="gelu"), 0, CPU)
    assert not same_as(reference, wrong), "or the test would prove nothing"


def test_a_workspace_builds_the_network_of_the_weights_without_fetching_them(reference):
    clip = build_clip(ModelSettings(name="RN50", pretrained="openai"), 0, CPU, weights=False)
    assert same_as(reference, clip.with_state(reference.state_dict()))


def test_a_tags_pixel_means_are_taken_without_fetching_its_weights(monkeypatch):
    built = []
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **given: built.append(given) or pytest.skip)
    with pytest.raises(AttributeError):
        build_clip(ModelSettings(name="ViT-L-14", pretrained="laion2b_s32b_b82k"), 0, CPU, weights=False)
    assert built[0]["force_preprocess_cfg"]["mean"] == open_clip.constants.INCEPTION_MEAN
    assert not built[0].get("pretrained")


def test_every_tag_of_open_clip_gets_what_its_weights_want():
    for name, tags in _PRETRAINED.items():
        for tag, config in tags.items():
            if name not in model_files():
                continue
            wanted = config.get("quick_gelu", False) or named_activation(name) == "quickgelu"
            model = ModelSettings(name=name, pretrained=tag)
            assert activation_of(model) == ("quickgelu" if wanted else "gelu"), (name, tag)
            means = (tuple(config["mean"]), tuple(config["std"]))
            differ = means != (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
            assert ("normalised" in activation.what_differs(model)) == differ, (name, tag)


def test_every_tag_of_open_clip_is_known_and_no_other():
    for name, tags in _PRETRAINED.items():
        for tag in tags:
            assert activation.unknown_tag(ModelSettings(name=name, pretrained=tag)) is None, (name, tag)
    with pytest.raises(UserError, match=r"pretrained.*unknown tag; allowed: .*openai.*\n.*did you mean `openai`"):
        check_model(ModelSettings(name="RN50", pretrained="openia"))
    with pytest.raises(UserError, match="unknown tag; allowed: none"):
        check_model(ModelSettings(name="tiny-rn", pretrained="openai"))


def test_tags_of_another_release_of_open_clip_are_left_to_it(monkeypatch):
    monkeypatch.setattr(activation, "version", lambda package: "99.0")
    check_model(ModelSettings(name="RN50", pretrained="of_the_future"))


def test_a_name_says_nothing_where_open_clip_has_weights_of_both_kinds():
    tags = {name for name, tags in _PRETRAINED.items() if any(config.get("quick_gelu") for config in tags.values())}
    assert {name for name in tags if named_activation(name) == "gelu"} <= {n for n in model_files() if is_ambiguous(n)}
    assert not is_ambiguous("tiny-rn")


def test_a_newer_table_of_tags_than_ours_is_met_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(
        activation, "_tags", lambda: {"open_clip": "0", "quickgelu": {}, "normalised": {}, "published": {}}
    )
    with pytest.raises(UserError, match=r"activation: these weights were trained with QuickGELU.*\n.*quickgelu"):
        build_clip(ModelSettings(name="RN50", pretrained="openai"), 0, CPU)
    check_pretrained_tag(ModelSettings(name="RN50", pretrained="openai", activation="quickgelu"), "quickgelu")


# Files


def openai_file(path):
    torch.save({"state_dict": {"visual.conv1.weight": torch.zeros(1), **OPENAI}}, path)


def openai_file_of_old_torch(path):
    torch.save({"visual.conv1.weight": torch.zeros(1), **OPENAI}, path, _use_new_zipfile_serialization=False)


def plain_file(path):
    torch.save({"state_dict": {"visual.conv1.weight": torch.zeros(1)}}, path)


def exported_file(path):
    save_file({"logit_scale": torch.zeros(1)}, path, metadata={"activation": "quickgelu"})


def hub_folder(path):
    save_file({"logit_scale": torch.zeros(1)}, path)
    config = {"model_cfg": {"embed_dim": 1, "quick_gelu": True}}
    path.with_name("open_clip_config.json").write_text(json.dumps(config))


FILES = {
    "openai.pt": (openai_file, "quickgelu"),
    "old.pt": (openai_file_of_old_torch, "quickgelu"),
    "plain.pt": (plain_file, None),
    "exported.safetensors": (exported_file, "quickgelu"),
    "open_clip_model.safetensors": (hub_folder, "quickgelu"),
    "plain.safetensors": (lambda path: save_file({"logit_scale": torch.zeros(1)}, path), None),
    "empty.pt": (lambda path: path.write_bytes(b""), None),
    "noise.pt": (lambda path: path.write_bytes(bytes(range(256)) * 9), None),
    "noise.safetensors": (lambda path: path.write_bytes(b"\xff" * 90), None),
    "folder.pt": (lambda path: path.mkdir(), None),
    "missing.pt": (lambda path: None, None),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_was_trained_with_as_far_as_it_does(tmp_path, name):
    write, expected = FILES[name]
    write(tmp_path / name)
    assert activation_said_by(tmp_path / name) == expected


@given(content=st.binary(max_size=300), suffix=st.sampled_from([".pt", ".safetensors"]))
@settings(max_examples=100, deadline=None)
def test_no_content_of_a_file_is_an_error_to_look_at(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    assert activation_said_by(path) is None
    assert not is_torchscript(path)


def test_a_folders_config_speaks_for_the_weights_that_open_clip_takes_from_it_alone(tmp_path):
    hub_folder(tmp_path / "open_clip_model.safetensors")
    plain_file(tmp_path / "other.pt")
    assert weights_in(tmp_path) == tmp_path / "open_clip_model.safetensors"
    assert activation_said_by(tmp_path / "other.pt") is None


def test_looking_at_a_file_executes_nothing(tmp_path):
    class Canary:
        def __reduce__(self):
            return type(tmp_path).touch, (tmp_path / "ran",)

    torch.save([Canary()], tmp_path / "bad.pt")
    assert activation_said_by(tmp_path / "bad.pt") is None
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_does_not_tell_has_to_be_told_of(tmp_path):
    path = tmp_path / "epoch_3.pt"
    plain_file(path)
    with pytest.raises(
        UserError, match=r"victim\.model\.activation: must be said.*epoch_3\.pt does not tell"
    ) as caught:
        check_model(ModelSettings(name="RN50", checkpoint=path))
    assert "CleanCLIP" in str(caught.value)
    for said in ("gelu", "quickgelu"):
        model = ModelSettings(name="RN50", checkpoint=path, activation=said)
        check_model(model)
        assert activation_of(model) == said
    check_model(ModelSettings(name="RN50-quickgelu", checkpoint=path))
    check_model(ModelSettings(name="tiny-rn", checkpoint=path))


def test_what_is_said_must_not_contradict_the_weights(tmp_path):
    path = tmp_path / "RN50.pt"
    openai_file(path)
    assert activation_of(ModelSettings(name="RN50", checkpoint=path)) == "quickgelu"
    for model in (
        ModelSettings(name="RN50", checkpoint=path, activation="gelu"),
        ModelSettings(name="RN50", pretrained="openai", activation="gelu"),
        ModelSettings(name="RN50-quickgelu", random_weights=True, activation="gelu"),
    ):
        with pytest.raises(UserError, match=r"victim\.model\.activation: contradicts.*study says GELU.*QuickGELU"):
            check_model(model)


def test_a_poisoned_checkpoint_is_of_the_clean_models_network(tmp_path, weights):
    silent, openai = tmp_path / "poisoned.pt", tmp_path / "openai.pt"
    plain_file(silent)
    openai_file(openai)
    check_model(ModelSettings(name="RN50", pretrained="openai"), silent)
    check_model(ModelSettings(name="RN50", pretrained="openai"), openai)
    check_model(ModelSettings(name="RN50", checkpoint=weights), silent)
    with pytest.raises(UserError, match=r"implant\.checkpoint: was trained with QuickGELU.*computes with GELU"):
        check_model(ModelSettings(name="RN50", random_weights=True), openai)
    with pytest.raises(UserError, match="must be said"):
        check_model(ModelSettings(name="RN50"), silent)


# Keys


def keys(**model):
    return {node.spec.name: node.key for node in build_pipeline(tiny_trial({"victim.model": model}), 0)}


def test_keys_are_those_of_before_unless_the_network_is_another(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"weights")
    before = keys(name="RN50", checkpoint=str(path), activation="gelu")
    again = keys(name="RN50", checkpoint=str(path), activation="quickgelu")
    assert all(before[stage] != again[stage] for stage in before)
    tiny = keys(name="tiny-rn")
    assert keys(name="tiny-rn", activation="gelu") == tiny
    assert tiny["pretrain"] == "7a4d49235e15cdcff523bc67f6cb2233"
    assert keys(name="tiny-rn", checkpoint=str(path))["load"] == "2e2fec13d93bb3efff29773371c5e3b4"


def test_the_weights_of_a_study_are_tried_with_their_network(weights, reference):
    clip = check_weights(ModelSettings(name="RN50", checkpoint=weights), weights)
    assert same_as(reference, clip)
