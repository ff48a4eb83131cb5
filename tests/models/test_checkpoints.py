"""Weights in files: the kinds that are taken, and that nothing else gets in, least of all code."""

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ubt.common.errors import UserError
from ubt.models.build import build_clip, load_weights
from ubt.models.settings import ModelSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def state():
    return build_clip(ModelSettings(name="tiny-rn", random_weights=True), 0, CPU).state()


@pytest.fixture
def net():
    return build_clip(ModelSettings(name="tiny-rn", random_weights=True), 1, CPU).net


def same(net, state):
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def as_trained_in_parallel(state):
    """Return what open_clip's and CleanCLIP's training scripts save."""
    return {"epoch": 3, "name": "x", "state_dict": {f"module.{name}": value for name, value in state.items()}}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}, as_trained_in_parallel])
def test_plain_tensors_are_loaded_with_or_without_a_wrapping(tmp_path, net, state, suffix, wrap):
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(state), path)
    load_weights(net, path)
    assert same(net, state)


def test_safetensors_are_loaded(tmp_path, net, state):
    path = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    load_weights(net, path)
    assert same(net, state)


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
    "weights.ckpt": lambda path, state: torch.save(state, path),
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
    assert "weights_only" not in problem.message.replace("``weights_only=True``", ""), "nor how to disarm the check"


@pytest.mark.parametrize("suffix", [".ckpt", ".npz", ".tar", ""])
def test_the_kinds_that_are_taken_are_listed(tmp_path, net, suffix):
    with pytest.raises(UserError, match=r"allowed: \.safetensors, \.pt, \.pth, \.bin"):
        load_weights(net, tmp_path / f"weights{suffix}")


def test_missing_weights_are_named(tmp_path, net, state):
    path = tmp_path / "partial.pt"
    torch.save({name: value for name, value in state.items() if "ln_final" not in name}, path)
    with pytest.raises(UserError, match=r"Missing key.*ln_final\.weight"):
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
