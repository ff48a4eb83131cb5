"""A stored model as files for other programs: whole weights, and beside them what it takes to use and to trust them.

In the store a model is a difference from the one it was made from, under a name that only this package understands.
What is written here is opened by open_clip itself. Loads no torch before there is something to write.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ubt.artifacts.exporting.model_note import ModelNote, Origin, Preprocessing
from ubt.common.atomic_files import whole_file, whole_folder
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_file
from ubt.common.model_choice import Format
from ubt.models.settings import ModelSettings, model_files

if TYPE_CHECKING:
    from torch import nn

    from ubt.models.clip import State

NOTE_FILE = "ubt_export.json"
"""What is said of the weights in a folder; beside a single file it is called like that, ending in .json."""
WEIGHTS_FILE, CONFIG_FILE = "open_clip_model.safetensors", "open_clip_config.json"
"""A folder's weights and architecture, as `open_clip.push_to_hf_hub` calls them."""

_PACKAGES = ("ubt-sweeper", "torch", "open_clip_torch", "safetensors")


_SUFFIXES = {Format.SAFETENSORS: (".safetensors",), Format.PT: (".pt", ".pth")}
"""What a file must end with: open_clip tells one kind from the other by it."""


class Destination:
    """Where a model is written to, checked before anything is read or computed.

    Raises:
        UserError: if the format and the ending of the name do not fit, or there is something that may not be replaced.
    """

    def __init__(self, out: Path, form: Format | None = None, force: bool = False) -> None:
        self.path = out
        self.form = form or _form_of(out)
        suffixes = _SUFFIXES.get(self.form)
        if suffixes and out.suffix not in suffixes:
            advice = f"let it end with {' or '.join(suffixes)}: open_clip goes by the ending"
            raise UserError(Problem("--out", f"is no name of a {self.form} file", str(out), advice))
        with _told(self.path):
            self._check_free(force)

    @property
    def note(self) -> Path:
        """Return the file beside the weights that says what they are."""
        return self.path / NOTE_FILE if self.form is Format.OPEN_CLIP else self.path.with_suffix(".json")

    def _check_free(self, force: bool) -> None:
        if self.form is Format.OPEN_CLIP:
            self._check_folder(force)
            return
        for path in (self.path, self.note):
            if path.is_dir():
                raise UserError(Problem("--out", "is a folder", str(path), "give a file's name"))
            if path.exists() and not force:
                raise UserError(Problem("--out", "is there already", str(path), "give another name, or --force"))

    def _check_folder(self, force: bool) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(Problem("--out", "is a file, and this format is a folder", str(self.path)))
        found = {path.name for path in self.path.iterdir()}
        if found and not force:
            advice = "give a new or an empty folder; --force replaces an earlier export"
            raise UserError(Problem("--out", "is not empty", str(self.path), advice))
        foreign = sorted(found - self._exported())
        if foreign:
            some = ", ".join(foreign[:5]) + (", …" if len(foreign) > 5 else "")
            advice = "--force replaces an earlier export and nothing else: give another folder"
            raise UserError(Problem("--out", f"holds files that no export wrote: {some}", str(self.path), advice))

    def _exported(self) -> set[str]:
        """Return the names of the files that an earlier export says it has written here."""
        try:
            return set(ModelNote.model_validate_json(self.note.read_bytes()).files)
        except (OSError, ValidationError):
            return set()


def write_model(to: Destination, model: ModelSettings, state: State, origin: Origin) -> ModelNote:
    """Write the weights `state` of a model, whole or not at all, and return what was written of them.

    The same weights give the same bytes, but for the versions of the packages in the note.

    Raises:
        UserError: if the weights do not fit the model, or the disk is full or not writable.
    """
    net, architecture = _network(model, state)
    with _told(to.path):
        if to.form is Format.OPEN_CLIP:
            with whole_folder(to.path) as folder:
                return _write_folder(folder, to, model, net, architecture, origin)
        with whole_file(to.note) as note, whole_file(to.path) as weights:
            _write_weights(weights, to.form, net, model, origin)
            said = _note(to, weights, model, net, architecture, origin, (to.path.name, to.note.name))
            note.write_text(_text(said), encoding="utf-8")
        return said


def _form_of(out: Path) -> Format:
    for form, suffixes in _SUFFIXES.items():
        if out.suffix in suffixes:
            return form
    advice = "end it with .safetensors or .pt, or say `--format open-clip` for a folder"
    raise UserError(Problem("--out", "does not say what to write", str(out), advice))


def _network(model: ModelSettings, state: State) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network with these weights, and open_clip's description of it."""
    import torch  # noqa: PLC0415 — 5 s, after all mistakes have been met
    from open_clip import get_model_config  # noqa: PLC0415

    from ubt.models.build import build_clip  # noqa: PLC0415

    net = build_clip(model, seed=0, device=torch.device("cpu"), weights=False).net
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as error:
        message = f"the weights are not those of this model: {' '.join(str(error).split())[:300]}"
        raise UserError(Problem(f"model {model.name}", message)) from error
    described: dict[str, Any] = get_model_config(model.name)
    return net, {**described, "quick_gelu": _computes_quickgelu(net)}


def _write_folder(
    folder: Path, to: Destination, model: ModelSettings, net: nn.Module, architecture: dict[str, Any], origin: Origin
) -> ModelNote:
    """Write what `open_clip.push_to_hf_hub` would upload, and the note."""
    import open_clip  # noqa: PLC0415
    from open_clip.push_to_hf_hub import save_config_for_hf  # noqa: PLC0415

    weights = folder / WEIGHTS_FILE
    _write_weights(weights, Format.SAFETENSORS, net, model, origin)
    save_config_for_hf(net, folder / CONFIG_FILE, architecture)
    # Of `transformers`, where the text is its; open_clip's own tokenizer and tower are there wherever open_clip is.
    parts: tuple[Any, Any] = (open_clip.get_tokenizer(model.name), getattr(getattr(net, "text", None), "config", None))
    for part in parts:
        if hasattr(part, "save_pretrained"):
            part.save_pretrained(folder)
    files = (*sorted(path.name for path in folder.iterdir()), NOTE_FILE)
    said = _note(to, weights, model, net, architecture, origin, files)
    (folder / NOTE_FILE).write_text(_text(said), encoding="utf-8")
    return said


def _write_weights(path: Path, form: Format, net: nn.Module, model: ModelSettings, origin: Origin) -> None:
    """Write the weights to `path`; `OSError` if the disk is full or not writable: both libraries raise others."""
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors = {name: value.contiguous() for name, value in net.state_dict().items()}
    try:
        if form is Format.PT:
            with path.open("wb") as stream:  # given a path, torch would put its name, here a passing one, into the file
                torch.save(tensors, stream)
            return
        path.touch()
        mode = path.stat().st_mode
        save_file(tensors, path, _metadata(net, model, origin))
        path.chmod(mode)  # the library lets no other user read what it writes
    except (SafetensorError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(str(cause)) from error
    _sort_metadata(path)


def _metadata(net: nn.Module, model: ModelSettings, origin: Origin) -> dict[str, str]:
    """Return what a safetensors file says of itself; `activation` is what this package looks for when it loads it."""
    activation = "quickgelu" if _computes_quickgelu(net) else "gelu"
    said = {"format": "pt", "written_by": "ubt-sweeper", "model": model.name, "activation": activation}
    whence = {"which": origin.which, "study": origin.study, "trial": origin.trial, "key": origin.key}
    return {**said, **{name: text for name, text in whence.items() if text}}


def _computes_quickgelu(net: nn.Module) -> bool:
    """Return the activation as the network is, not as its name says: some weights want the other one than it."""
    from open_clip.transformer import QuickGELU  # noqa: PLC0415

    return any(isinstance(module, QuickGELU) for module in net.modules())


def _sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in order: the library writes it as it comes, and equal files would differ."""
    with path.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(text) == length:
            stream.seek(8)
            stream.write(text)


def _note(
    to: Destination,
    weights: Path,
    model: ModelSettings,
    net: nn.Module,
    architecture: dict[str, Any],
    origin: Origin,
    files: tuple[str, ...],
) -> ModelNote:
    from open_clip.model import get_model_preprocess_cfg  # noqa: PLC0415

    images = get_model_preprocess_cfg(net)
    size = images["size"]
    preprocessing = Preprocessing(
        image_size_px=size if isinstance(size, int) else size[0],
        mean=images["mean"],
        std=images["std"],
        interpolation=images.get("interpolation", "bicubic"),
        resize_mode=images.get("resize_mode", "shortest"),
    )
    return ModelNote(
        name=model.name,
        activation="quickgelu" if architecture["quick_gelu"] else "gelu",
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        preprocessing=preprocessing,
        architecture=architecture,
        weights=WEIGHTS_FILE if to.form is Format.OPEN_CLIP else to.path.name,
        sha256=digest_file(weights),
        files=files,
        load=_how_to_load(to, model.name, architecture, preprocessing),
        origin=origin,
        versions={name: version(name) for name in _PACKAGES},
    )


def _how_to_load(to: Destination, name: str, architecture: dict[str, Any], images: Preprocessing) -> str:
    """Return the call that opens what was written, from the folder that it lies in."""
    import open_clip  # noqa: PLC0415

    if to.form is Format.OPEN_CLIP:
        return f'open_clip.create_model_and_transforms("local-dir:{to.path.name}")'
    if name not in model_files() or model_files()[name].parent.name != "model_configs":
        return ""  # the embedded model, which open_clip has not heard of
    words = [f'"{name}"', f'pretrained="{to.path.name}"']
    if architecture["quick_gelu"] != bool(open_clip.get_model_config(name).get("quick_gelu")):
        words.append("force_quick_gelu=True")
    usual = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    if (images.mean, images.std) != usual:
        words += [f"image_mean={images.mean}", f"image_std={images.std}"]
    return f"open_clip.create_model_and_transforms({', '.join(words)})"


def _text(note: ModelNote) -> str:
    return note.model_dump_json(indent=1) + "\n"


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell a disk that is full or not writable as a mistake of the user's; what was begun has then been removed."""
    try:
        yield
    except OSError as error:
        advice = "give a file in a folder of yours, on a disk with room for it"
        raise UserError(Problem("--out", f"cannot be written: {error}", str(path), advice)) from error
