import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import save

from ubt.artifacts.codec import MODEL, TENSORS, Artifact, changed, decode, encode, overlay
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import DamagedArtifact

KEY = "a" * 32
TENSOR = arrays.arrays("float32", arrays.array_shapes(min_dims=0, max_dims=2, max_side=3)).map(torch.from_numpy)
STATES = st.dictionaries(st.sampled_from("abcd"), TENSOR, max_size=4)


def described(**fields):
    return ArtifactManifest(stage="implant", key=KEY, version=1, seed=0, settings={}, inputs={}, **fields)


def same_bits(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.int32, torch.float32]
DTYPES += [torch.float64, torch.int64, torch.uint16, torch.complex64]


@given(st.dictionaries(st.text(max_size=3), st.tuples(TENSOR, st.sampled_from(DTYPES)), max_size=5))
def test_tensors_are_encoded_as_safetensors_itself_does(found):
    tensors = {name: value.to(dtype) for name, (value, dtype) in found.items()}
    assert b"".join(encode(tensors)) == save(tensors)


@given(STATES, STATES)
def test_difference_and_overlay_give_the_model_back_bit_for_bit(model, base):
    whole = overlay(changed(model, base), {name: base[name] for name in base if name in model})
    assert set(whole) == set(model)
    assert all(same_bits(whole[name], model[name]) for name in model)


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (torch.tensor([-0.0]), torch.tensor([0.0])),
        (torch.tensor([torch.nan]), torch.tensor([torch.nan])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.tensor([1]), torch.tensor([1], dtype=torch.int32)),
        (torch.tensor(1.0), torch.tensor([1.0])),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0])),
        (torch.tensor([True]), torch.tensor([False])),
    ],
    ids=["sign of zero", "nan", "float dtype", "int dtype", "scalar", "shape", "bool"],
)
def test_no_difference_is_too_small_to_be_kept(value, base):
    whole = overlay(changed({"w": value}, {"w": base}), {"w": base})
    assert same_bits(whole["w"], value)


def test_only_what_differs_is_in_the_difference():
    base = {"embedding": torch.ones(4, 2), "head": torch.zeros(3), "steps": torch.tensor(0)}
    model = {"embedding": torch.ones(4, 2), "head": torch.tensor([0.0, 1e-30, 0.0]), "steps": torch.tensor(0)}
    assert set(changed(model, base)) == {"head"}
    assert changed(model, None) is model
    assert set(overlay(model, None)) == set(model)


def test_a_strided_tensor_differs_by_its_values_not_by_its_layout():
    value = torch.arange(6.0).view(2, 3).T
    assert changed({"w": value}, {"w": value.contiguous()}) == {}
    assert set(changed({"w": value}, {"w": value.contiguous() + 1})) == {"w"}


@given(STATES)
def test_tensors_survive_the_trip_through_the_store(tmp_path_factory, tensors):
    store = ArtifactStore(tmp_path_factory.getbasetemp() / "trip")
    complete = store.publish(described(), {TENSORS: encode(tensors)})
    read = decode(store, complete, TENSORS)
    assert set(read) == set(tensors)
    assert all(same_bits(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16, torch.float16, torch.uint8])
def test_every_kind_of_tensor_can_be_kept(tmp_path, dtype):
    tensors = {"x": torch.tensor([[0, 1, 1]]).to(dtype).T, "grad": torch.ones(2, requires_grad=True)}
    store = ArtifactStore(tmp_path)
    read = decode(store, store.publish(described(), {TENSORS: encode(tensors)}), TENSORS)
    assert read["x"].dtype == dtype
    assert torch.equal(read["x"], tensors["x"])
    assert not read["grad"].requires_grad


def test_a_payload_that_the_artifact_does_not_have_holds_nothing(tmp_path):
    store = ArtifactStore(tmp_path)
    assert decode(store, store.publish(described(), {}), MODEL) == {}


def test_a_payload_that_is_whole_but_no_safetensors_is_damaged_and_set_aside(tmp_path):
    store = ArtifactStore(tmp_path)
    complete = store.publish(described(), {TENSORS: b"not tensors at all"})
    with pytest.raises(DamagedArtifact, match=KEY):
        decode(store, complete, TENSORS)
    assert not store.has("implant", KEY), "or it would be met again, and never computed anew"


def test_an_artifact_knows_its_size_and_whether_it_is_a_model():
    tensors = {"similarities": torch.zeros(10)}
    assert Artifact(described(), tensors).size_bytes == 40
    assert Artifact(described(), tensors, {"w": torch.zeros(2, dtype=torch.float64)}).size_bytes == 56
    with pytest.raises(ValueError, match=f"implant {KEY} is no model"):
        _ = Artifact(described(), tensors).weights
