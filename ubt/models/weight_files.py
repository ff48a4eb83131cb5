"""What a file of weights says of itself, read without torch and without unpickling: planning has to know it.

Only the opcodes of a pickle are listed, which executes nothing; the tensors are not read.
"""

from __future__ import annotations

import json
import pickletools
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

from ubt.common.errors import Problem, UserError
from ubt.data.digests import Stamp, stamp_if_there

Activation = Literal["gelu", "quickgelu"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".pt.tar")
"""Of files with weights, in any case, small letters or capitals."""
CONFIG_FILE = "open_clip_config.json"
"""Describes the model in a folder that `open_clip.push_to_hf_hub` wrote."""
WEIGHTS_FILE = "open_clip_model.safetensors"
"""Holds the weights in such a folder."""
ACTIVATION = "activation"
"""Names the activation, in a .safetensors file's metadata and in the note that `ubt export` writes beside weights."""

_PREFERRED = (
    *(WEIGHTS_FILE, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
OPENAI_KEYS = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Keys that OpenAI's archives, and the state dicts exported from them, have beside the weights."""
_HEADER_LIMIT_BYTES = 64 << 20
"""Names and shapes take a few hundred kilobytes; more is no header."""
_MOST_TIMES = 4
"""As much larger than its archive may what is in it be: torch does not compress, others may have."""
_UNREADABLE = (
    *(OSError, ValueError, EOFError, LookupError, RuntimeError, AttributeError, TypeError, RecursionError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


def activation_said_by(path: Path) -> Activation | None:
    """Return the activation that weights were trained with, as far as their file or its folder says it.

    Known of: .safetensors with an `activation` in their metadata, and weights beside a note that says it (`ubt export`
    writes both); the weights of a folder with an `open_clip_config.json`; and state dicts of OpenAI's archives, which
    are all QuickGELU. None for any other, and for what cannot be read: that is said when it is loaded.
    """
    said = _said(path, stamp_if_there(path)) or _of_note(path)
    if said or weights_in(path.parent) != path:
        return said
    try:
        return activation_in(json.loads((path.parent / CONFIG_FILE).read_text(encoding="utf-8"))["model_cfg"])
    except _UNREADABLE:
        return None


def activation_in(model_config: dict[str, object]) -> Activation:
    """Return the activation of a model that is described as open_clip does it: GELU unless it says `quick_gelu`."""
    return "quickgelu" if model_config.get("quick_gelu") else "gelu"


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, which holds code beside the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    except _UNREADABLE:
        return False


def check_kind(path: Path, where: str) -> None:
    """Refuse a file that no weights are taken from, by its name, or because it holds code or unpacks to too much.

    Raises:
        UserError: with the kinds that there are, or how an archive's weights are exported.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(Problem(where, f"unknown kind of checkpoint; allowed: {', '.join(SUFFIXES)}", path.name))
    if is_torchscript(path):
        advice = f"if you trust it: torch.save(torch.jit.load('{path.name}', map_location='cpu').state_dict(), 'w.pt')"
        message = "cannot be loaded: it is a TorchScript archive, which holds code"
        raise UserError(Problem(where, message, path.name, advice))
    unpacked = _unpacked_bytes(path)
    if unpacked and unpacked > _MOST_TIMES * path.stat().st_size + _HEADER_LIMIT_BYTES:
        message = f"cannot be loaded: it unpacks to {unpacked / 2**30:.1f} GiB, which torch never writes"
        raise UserError(Problem(where, message, path.name, "weights are hardly any smaller when they are compressed"))


def _unpacked_bytes(path: Path) -> int:
    """Return how much memory the files in an archive take; 0 for what is none (as large as it looks) or is missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(file.file_size for file in archive.infolist())
    except _UNREADABLE:
        return 0


def weights_in(folder: Path) -> Path | None:
    """Return the file that holds the weights in a folder with an `open_clip_config.json`; None if there is none.

    Where there are several it is the one that open_clip's own loader takes.
    """
    if not (folder / CONFIG_FILE).is_file():
        return None
    named = (folder / name for name in _PREFERRED)
    others = (path for suffix in (".safetensors", ".bin", ".pth") for path in sorted(folder.glob(f"*{suffix}")))
    return next((path for path in (*named, *others) if path.is_file()), None)


@lru_cache(maxsize=256)
def _said(path: Path, stamp: Stamp | None) -> Activation | None:
    """Return what the file alone says; `stamp` changes when it is written anew."""
    try:
        if path.suffix.lower() == ".safetensors":
            return _of_metadata(path)
        return "quickgelu" if _words(path) >= OPENAI_KEYS else None
    except _UNREADABLE:
        return None


def _of_metadata(path: Path) -> Activation | None:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(length, _HEADER_LIMIT_BYTES)))
    said = header.get("__metadata__", {}).get(ACTIVATION)
    return said if said in {"gelu", "quickgelu"} else None


def _of_note(path: Path) -> Activation | None:
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        said = note.get(ACTIVATION) if note.get("weights") == path.name else None
    except (*_UNREADABLE, AttributeError):
        return None
    return said if said in {"gelu", "quickgelu"} else None


def _words(path: Path) -> set[str]:
    """Return the strings in a file that `torch.save` wrote: names of weights, keys and values beside them."""
    if not zipfile.is_zipfile(path):  # as torch wrote until 1.6: pickles one behind the other, the object is the fourth
        with path.open("rb") as file:
            return set().union(*(_strings(file) for _ in range(4)))
    with zipfile.ZipFile(path) as archive:
        (pickled, *_) = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if archive.getinfo(pickled).file_size > _HEADER_LIMIT_BYTES:
            return set()
        with archive.open(pickled) as file:
            return _strings(file)


def _strings(file: IO[bytes]) -> set[str]:
    return {argument for _, argument, _ in pickletools.genops(file) if isinstance(argument, str)}


def described_by(folder: Path) -> list[Path]:
    """Return the files of a folder that say what model it holds: description, tokenizer, text tower."""
    names = ("*.json", "merges.txt", "vocab.txt", "*.model")
    return sorted({path for name in names for path in folder.glob(name) if not path.name.endswith(".index.json")})
