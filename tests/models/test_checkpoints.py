"""Weights in files: the kinds that are taken, and that nothing else gets in, least of all code."""

import argparse
import math
import re
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ubt.common.errors import UserError
from ubt.models.build import build_clip
from ubt.models.checkpoints import CONTAINERS, PREFIXES, Inert, _read, load_weights
from ubt.models.checks import check_model
from ubt.models.settings import ModelSettings
from ubt.models.weight_files import OPENAI_KEYS, SUFFIXES

CPU = torch.device("cpu")


VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
SMALL_TEXT = {"context_length": 9, "vocab_size": 60, "width": 24, "heads": 3, "layers": 2}


def tiny_net():
    return open_clip.model.CLIP(16, VISION, SMALL_TEXT)


@pytest.fixture(scope="module")
def small():
    """Return the weights of a network that is small enough to be saved and loaded by the dozen."""
    return tiny_net().state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def state():
    return build_clip(ModelSettings(name="tiny-rn", random_weights=True), 0, CPU).state()


@pytest.fixture
def net():
    return build_clip(ModelSettings(name="tiny-rn", random_weights=True), 1, CPU).net


def same(net, state):
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def renamed(state, prefixes):
    return {f"{''.join(prefixes)}{name}": value for name, value in state.items()}


def beside(weights, place):
    """Return what a training script saves: weights under a key, beside numbers, arguments and metrics."""
    for name in reversed(place):
        weights = {
            "epoch": np.int64(3),
            "name": "x",
            name: weights,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": np.float64(1e-3)}]},
            "args": argparse.Namespace(lr=np.float32(0.1), out=Path("out"), classes=np.arange(3)),
        }
    return weights


@given(
    prefixes=st.lists(st.sampled_from(PREFIXES), max_size=4),
    place=st.lists(st.sampled_from(CONTAINERS), max_size=2),
    suffix=st.sampled_from(SUFFIXES).flatmap(lambda s: st.sampled_from([s, s.upper(), s.title()])),
    half=st.booleans(),
    openai=st.booleans(),
    old=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_weights_are_found_in_every_usual_wrapping(small, folder, prefixes, place, suffix, half, openai, old):
    state = {name: value.half() if half and value.is_floating_point() else value for name, value in small.items()}
    extra = {name: torch.tensor(7) for name in OPENAI_KEYS} if openai else {}
    path = folder / f"weights{suffix}"
    weights = renamed({**state, **extra}, prefixes)
    if suffix.lower() == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(beside(weights, place), path, _use_new_zipfile_serialization=not old)
    net = tiny_net()
    load_weights(net, path)
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in net.state_dict().items())


def as_trained_in_parallel(state):
    """Return what open_clip's, CleanCLIP's and BadCLIP's training scripts save."""
    return {"epoch": 3, "name": "x", "state_dict": renamed(state, ["module."]), "optimizer": {}}


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}, as_trained_in_parallel])
def test_the_embedded_model_is_loaded_as_training_scripts_save_it(tmp_path, net, state, wrap):
    path = tmp_path / "epoch_3.pt"
    torch.save(wrap(state), path)
    load_weights(net, path)
    assert same(net, state)


def test_weights_under_two_keys_are_not_chosen_between(tmp_path, small):
    path = tmp_path / "two.pt"
    torch.save({"state_dict": small, "model": {"net": small}}, path)
    with pytest.raises(UserError, match=r"weights twice, under `state_dict` and `model\.net`"):
        load_weights(tiny_net(), path)


def test_a_shadow_of_the_weights_is_not_taken_for_them(tmp_path, small):
    path = tmp_path / "ema.pt"
    torch.save({"state_dict": small, "ema": {name: value + 1 for name, value in small.items()}}, path)
    net = tiny_net()
    load_weights(net, path)
    assert torch.equal(net.state_dict()["ln_final.bias"], small["ln_final.bias"])


def test_where_no_weights_are_the_keys_that_there_are_are_named(tmp_path):
    path = tmp_path / "none.pt"
    torch.save({"epoch": 3, "weights_of_mine": {"a": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="no weights are found in it: it holds only epoch, weights_of_mine"):
        load_weights(tiny_net(), path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_and_named(tmp_path, small, bad):
    spoilt = {name: value.clone() for name, value in small.items()}
    spoilt["ln_final.bias"][3] = bad
    path = tmp_path / "spoilt.pt"
    torch.save(spoilt, path)
    net = tiny_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=r"1 of its \d+ weights hold NaN or infinite values: ln_final\.bias"):
        load_weights(net, path)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("part", ["visual", "text"])
def test_positions_of_another_image_size_or_caption_length_are_not_stretched(tmp_path, part):
    vision, text = {**VISION, "image_size": 48}, {**SMALL_TEXT, "context_length": 24}
    other = open_clip.model.CLIP(16, vision if part == "visual" else VISION, text if part == "text" else SMALL_TEXT)
    path = tmp_path / "other.pt"
    torch.save(other.state_dict(), path)
    with pytest.raises(
        UserError, match=r"1 of \d+ are of another shape: (visual\.)?positional_embedding \(\["
    ) as caught:
        load_weights(tiny_net(), path)
    assert "another image size or caption length" in str(caught.value)


def test_torchscript_is_not_run_and_its_export_is_explained(tmp_path):
    path = tmp_path / "RN50.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with pytest.raises(UserError, match=r"TorchScript archive, which holds code .*\n.*torch\.jit\.load\('RN50\.pt'"):
        load_weights(tiny_net(), path)
    with pytest.raises(UserError, match=r"victim\.model\.checkpoint: .*TorchScript"):
        check_model(ModelSettings(name="RN50", checkpoint=path))


def test_a_pickled_model_is_refused_by_the_names_of_its_classes(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"model": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match=r"it holds .*torch\.nn\.modules\.linear\.Linear.*could run code") as caught:
        load_weights(tiny_net(), path)
    assert "torch.save(model.state_dict(), 'weights.pt')" in str(caught.value)


def test_what_stands_beside_weights_is_not_even_given_to_numpy(tmp_path, small, monkeypatch):
    path = tmp_path / "args.pt"
    torch.save(beside(small, ["state_dict"]), path)
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *_, **__: pytest.fail("made"))
    content = _read(path)
    assert isinstance(content["args"], Inert)
    assert isinstance(content["epoch"], Inert)


def test_sparse_weights_are_refused(tmp_path, small):
    path = tmp_path / "sparse.pt"
    torch.save({**small, "ln_final.bias": small["ln_final.bias"].to_sparse()}, path)
    with pytest.raises(UserError, match="sparse"):
        load_weights(tiny_net(), path)


def test_weights_of_an_older_open_clip_fit_a_model_with_a_text_tower_of_its_own(tmp_path, small):
    net = open_clip.model.CustomTextCLIP(16, VISION, SMALL_TEXT)
    path = tmp_path / "older.pt"
    torch.save({**small, "attn_mask": torch.zeros(4, 4)}, path)
    load_weights(net, path)
    assert torch.equal(net.text.token_embedding.weight, small["token_embedding.weight"])


def test_openai_keeps_half_precision_and_the_model_stays_in_full(tmp_path, net, state):
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    path = tmp_path / "RN50.pt"
    torch.save(halves, path)
    load_weights(net, path)
    assert all(value.dtype == state[name].dtype for name, value in net.state_dict().items())
    assert torch.equal(net.text_projection, state["text_projection"].half().float())


class Canary:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return type(self.mark).touch, (self.mark,)


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: {"state_dict": c}, lambda c: {"state_dict": {}, "args": c}])
def test_no_code_in_a_checkpoint_is_run(tmp_path, net, state, wrap):
    mark, path = tmp_path / "code-ran", tmp_path / "weights.pt"
    torch.save(wrap(Canary(mark)), path)
    with pytest.raises(UserError, match="could run code"):
        load_weights(net, path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "or the test would prove nothing"


def cut(part):
    def write(path, state):
        torch.save(state, path)
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])

    return write


def cut_safetensors(path, state):
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    path.write_bytes(path.read_bytes()[:-1000])


SPOILT = {
    "empty.pt": lambda path, _: path.write_bytes(b""),
    "garbage.pt": lambda path, _: path.write_bytes(b"hello" * 100),
    "garbage.safetensors": lambda path, _: path.write_bytes(b"hello" * 100),
    "truncated.pt": cut(0.99),
    "header.pt": cut(0.001),
    "truncated.safetensors": cut_safetensors,
    "nothing.pt": lambda path, _: torch.save({}, path),
    "none.pt": lambda path, _: torch.save(None, path),
    "list.pt": lambda path, _: torch.save([1, 2], path),
    "tensor.pt": lambda path, _: torch.save(torch.zeros(3), path),
    "numbers.pt": lambda path, _: torch.save({1: torch.zeros(3)}, path),
    "words.pt": lambda path, _: torch.save({"a": "b"}, path),
    "folder.pt": lambda path, _: path.mkdir(),
    "missing.pt": lambda path, _: None,
    "partial.pt": lambda path, state: torch.save({n: v for n, v in state.items() if "ln_final" not in n}, path),
    "more.pt": lambda path, state: torch.save({**state, "head.weight": torch.zeros(2)}, path),
    "weights.npz": lambda path, state: path.write_bytes(b""),
    "weights": lambda path, state: torch.save(state, path),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_used_is_a_user_error_that_names_the_file(tmp_path, net, state, name):
    path = tmp_path / name
    SPOILT[name](path, state)
    with pytest.raises(UserError) as caught:
        load_weights(net, path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert len(problem.message.removeprefix("cannot be loaded: ")) > 5, "and says why"
    assert not re.search("[a-z]Error", problem.message), "in words, not by the class of an exception"
    assert "weights_only" not in problem.message.replace("``weights_only=True``", ""), "nor how to disarm the check"


@pytest.mark.parametrize("suffix", [".npz", ".tar", ""])
def test_the_kinds_that_are_taken_are_listed(tmp_path, net, suffix):
    with pytest.raises(UserError, match=r"allowed: \.safetensors, \.pt, \.pth, \.bin, \.ckpt, \.pth\.tar"):
        load_weights(net, tmp_path / f"weights{suffix}")


def test_missing_weights_are_named(tmp_path, net, state):
    path = tmp_path / "partial.pt"
    torch.save({name: value for name, value in state.items() if "ln_final" not in name}, path)
    with pytest.raises(UserError, match=r"2 of \d+ are missing: ln_final\.weight, ln_final\.bias\n"):
        load_weights(net, path)


TEXT = {"context_length": 16, "width": 96, "heads": 4, "layers": 2}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}
OTHERS = {
    "narrower text": {"vision_cfg": RESNET, "text_cfg": {**TEXT, "width": 48}},
    "fewer text layers": {"vision_cfg": RESNET, "text_cfg": {**TEXT, "layers": 1}},
    "vision transformer": {
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": TEXT,
    },
}


@pytest.mark.parametrize("other", OTHERS)
def test_weights_of_another_model_are_refused(tmp_path, net, other):
    path = tmp_path / "other.pt"
    torch.save(open_clip.model.CLIP(embed_dim=128, **OTHERS[other]).state_dict(), path)
    with pytest.raises(UserError, match="cannot be loaded: "):
        load_weights(net, path)


def test_an_archive_that_unpacks_to_what_no_weights_take_is_refused(tmp_path, small):
    """A hundred thousand bytes of zeros that torch would unpack to gigabytes."""
    torch.save(small, tmp_path / "stored.pt")
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
        packed.writestr("archive/data/zeros", bytes(80 << 20))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"it unpacks to 0\.1 GiB, which torch never writes"):
        load_weights(tiny_net(), bomb)
    load_weights(tiny_net(), tmp_path / "stored.pt")
