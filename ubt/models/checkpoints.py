"""Weights from files, however a training script wrapped them, into a network; no code in a file is run.

Taken are open_clip's checkpoints and those of scripts like it (CleanCLIP, BadCLIP: `{"epoch", "name", "state_dict",
"optimizer"}` with `module.` before each key), state dicts exported from OpenAI's archives, and plain ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ubt.common.errors import Problem, UserError
from ubt.models.weight_files import OPENAI_KEYS, check_kind

CONTAINERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "clip", "clip_model", "weights", "params"),
)
"""Keys under which training scripts put the weights, one inside the other too."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "clip.", "clip_model.")
"""What wrappers put before the names of all weights: `DistributedDataParallel`, `torch.compile`, one's own modules."""

_DEPTH = 3
_NAMED = 3
"""How many of the weights that do not fit are named."""
_UNUSABLE = (
    *(OSError, EOFError, UnpicklingError, SafetensorError, RuntimeError, ValueError, LookupError, AssertionError),
    *(AttributeError, TypeError, StopIteration),
)
"""What torch and safetensors raise for files that are damaged or of another kind."""


class Inert:
    """Stands for what is saved beside weights and not needed: arguments, metrics, paths. Takes anything, does nothing.

    Unpickling calls it in the place of the class or function that the file names, so that not even numpy's own
    functions are given what a file says.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_NUMBERS = ("Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_SCALARS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
HARMLESS = (
    *("argparse.Namespace", "_codecs.encode"),
    *(f"pathlib.{flavour}Path" for flavour in ("", "Posix", "Windows", "PurePosix", "PureWindows", "Pure")),
    *(f"pathlib._local.{flavour}Path" for flavour in ("", "Posix", "Windows", "PurePosix", "PureWindows", "Pure")),
    *(f"numpy.{core}.multiarray.{made}" for core in ("core", "_core") for made in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "numpy.bool", "numpy.bool_", "numpy.dtypes.BoolDType", "numpy.dtypes.StrDType"),
    *(f"numpy.dtypes.{number}DType" for number in _NUMBERS),
    *(f"numpy.{scalar}" for scalar in _SCALARS),
)
"""Classes and functions that may be named beside weights: `Inert` is put in their place."""


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a file's weights into a network, whichever of the usual wrappings they are in, without unpickling code.

    Raises:
        UserError: if the file is missing, damaged or of another kind, holds code, or weights that are not finite, or
            was made for another model.
    """
    state = _of_network(net, _stripped(_weights_of(_read(path), path), path))
    _check_fits(net, state, path)
    check_finite(state, path)
    net.load_state_dict(state)


def _read(path: Path) -> object:
    """Return what a file holds; everything that is no tensor, number, text or collection is `Inert`."""
    check_kind(path, str(path))
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([(Inert, name) for name in HARMLESS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(Problem(str(path), "there is no such checkpoint")) from error
    except UnpicklingError as error:
        raise _cannot(path, *_met(path, error)) from error
    except _UNUSABLE as error:
        text = " ".join(str(error).split()).partition(". ")[0][:300]
        # Without a sentence it is a bare `EOFError`, or `KeyError: 101` for a letter that is no instruction of pickle.
        raise _cannot(path, text if " " in text else "it is empty, cut off, or was not written by torch") from error


def _met(path: Path, error: UnpicklingError) -> tuple[str, str]:
    """Return what a file holds that is not unpickled, and what to do. Torch's own words advise to run it."""
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in HARMLESS]):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _UNUSABLE:  # an older format, or no pickle at all
        names = re.findall(r"GLOBAL (\S+)", str(error))
    if not names:
        return "it holds more than plain tensors, or is damaged; to unpickle that could run code", _ADVICE
    advice = "where it was written, save its tensors alone: torch.save(model.state_dict(), 'weights.pt')"
    return f"it holds {_some(names)} beside tensors, and to unpickle that could run code", advice


def _weights_of(content: object, path: Path) -> dict[str, Tensor]:
    """Return the weights in what a file holds, under whichever of the usual keys they are."""
    found = dict(_states(content))
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        places = " and ".join(f"`{place}`" for place in found)
        raise _cannot(
            path, f"it holds weights twice, under {places}", "save those that you mean in a file of their own"
        )
    if not isinstance(content, Mapping):
        raise _cannot(path, f"it holds a {type(content).__name__}, not named weights")
    keys = f"only {_some([str(key) for key in content])}" if content else "nothing"
    raise _cannot(path, f"no weights are found in it: it holds {keys}", f"put them under `{CONTAINERS[0]}`, or alone")


def _states(content: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the place of each collection of weights, and the weights."""
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if named and len(named) * 2 > len(content):
        yield place, named
        return
    for name in CONTAINERS:
        yield from _states(content.get(name), f"{place}.{name}".lstrip("."), depth + 1)


def _stripped(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return weights by their own names, without what wrappers put before all of them, in whichever order."""
    names = {name: name.replace("_orig_mod.", "") for name in state}
    while prefix := next((prefix for prefix in PREFIXES if all(n.startswith(prefix) for n in names.values())), None):
        names = {name: stripped.removeprefix(prefix) for name, stripped in names.items()}
    if len(set(names.values())) < len(names):
        raise _cannot(path, "two of its weights have one name once the wrappers' prefixes are taken away")
    return {stripped: state[name] for name, stripped in names.items() if stripped not in OPENAI_KEYS}


def _of_network(net: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as the network names and shapes them: older formats of open_clip, scalars, masks."""
    state = cast("dict[str, Tensor]", convert_state_dict(net, state))
    if "positional_embedding" in state and not hasattr(net, "positional_embedding"):
        state = cast("dict[str, Tensor]", convert_to_custom_text_state_dict(state))
    own = net.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own and state[name].numel() == own[name].numel():
            state[name] = state[name].reshape(own[name].shape)
    made = {name for name in state if name not in own and name.endswith(("attn_mask", "position_ids"))}
    counters = {n: own[n] for n in own if n.endswith("num_batches_tracked") and n not in state}
    return {**{name: value for name, value in state.items() if name not in made}, **counters}


def _check_fits(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = net.state_dict()
    odd = [
        name for name, value in state.items() if value.layout != torch.strided or value.is_meta or value.is_quantized
    ]
    if odd:
        raise _cannot(path, f"these weights are sparse, quantised or without values: {_some(odd)}")
    shapes = [
        f"{name} ({list(state[name].shape)} in the file, {list(own[name].shape)} in the model)"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    found = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    if not any(found.values()):
        return
    parts = [f"{len(names)} of {len(own)} are {what}: {_some(names)}" for what, names in found.items() if names]
    sizes = [name for name in shapes if "positional_embedding" in name]
    advice = "give weights of this model, or name theirs in `victim.model.name`"
    if len(sizes) == len(shapes) and shapes and not (found["missing"] or found["unexpected"]):
        advice = "they are of a model for another image size or caption length: name it in `victim.model.name`"
    raise _cannot(path, f"its weights are not of this model: {'; '.join(parts)}", advice)


def check_finite(state: Mapping[str, Tensor], origin: Path | str) -> None:
    """Refuse weights of a training that has diverged.

    Raises:
        UserError: with the first weights that hold NaN or infinite values.
    """
    spoilt = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if spoilt:
        message = f"{len(spoilt)} of its {len(state)} weights hold NaN or infinite values: {_some(spoilt)}"
        raise _cannot(origin, message, "take an earlier checkpoint of that training: this one has diverged")


_ADVICE = "give weights of this model, as .safetensors or as a .pt file of plain tensors"


def _cannot(origin: Path | str, reason: str, advice: str = _ADVICE) -> UserError:
    return UserError(Problem(str(origin), f"cannot be loaded: {reason}", advice=advice))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
