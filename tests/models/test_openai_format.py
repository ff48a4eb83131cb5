"""Weights under OpenAI's tag, in its files' formats, without a network, as made by `benchmarks/openai_weights.py`."""

import importlib.util
from pathlib import Path

import huggingface_hub
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from open_clip.transformer import QuickGELU

from ubt.models.build import build_clip
from ubt.models.clip import same_state
from ubt.models.settings import ModelSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "openai_weights.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_tag_and_the_state_dict_of_the_archive_give_the_network_that_open_clip_s_converter_gives(
    benchmark, tmp_path, monkeypatch
):
    state = benchmark.openai_state_dict("RN50")
    assert {str(value.dtype) for value in state.values()} == {"torch.float16", "torch.float32", "torch.int64"}
    converted = build_model_from_openai_state_dict(dict(state)).float()
    assert any(isinstance(module, QuickGELU) for module in converted.modules())
    torch.save(state, tmp_path / "RN50.pt")
    benchmark.put_into_hub_cache(tmp_path / "hub", "RN50", state)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for given in ({"pretrained": "openai"}, {"checkpoint": tmp_path / "RN50.pt"}):
        clip = build_clip(ModelSettings(name="RN50", **given), 0, CPU)
        assert clip.activation == "quickgelu"
        assert any(isinstance(module, QuickGELU) for module in clip.net.modules())
        assert same_state(clip.state(), converted.state_dict())
