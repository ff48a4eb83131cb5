"""Poison as configured: made here by the attack, or there already; and the list of it that came with given pairs.

Loads no torch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationError

from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_file
from ubt.common.paths import is_file
from ubt.config import Config
from ubt.data.digests import Stamp, stamp
from ubt.data.tables import raise_if_any


class MadePoison(Config):
    """The attack poisons the data's pairs."""

    kind: Literal["made"] = "made"


class GivenPoison(Config):
    """The data's pairs are poisoned already, and taken as they are.

    Which of them are poisoned is known from a `manifest` or an `image_pattern`. With neither, nothing that tells poison
    from clean pairs (recall, precision, purity, AUROC) is measured. The victim's `attack` is still what ASR is
    measured with.
    """

    kind: Literal["given"] = "given"
    manifest: Path | None = None
    """List of the poisoned pairs: the `manifest.json` of `ubt poison`, or a CSV, TSV or JSON list of rows (from 0) or
    image files; with a column `is_backdoor` or `poisoned`, those where it is true."""
    image_pattern: str | None = Field(default=None, min_length=1)
    """What the image files of the poisoned pairs, and of no others, are called: `*backdoor*`."""

    @property
    def known(self) -> bool:
        """Return whether it is known which pairs are poisoned."""
        return self.manifest is not None or self.image_pattern is not None


Poison = MadePoison | GivenPoison
PoisonConfig = Annotated[
    Poison,
    Field(discriminator="kind"),
    BeforeValidator(lambda said: {"kind": said} if isinstance(said, str) else said),
]
"""Where the poison comes from, as configured; a bare name stands for its default settings."""

HOW_TO_LIST = (
    "give the manifest.json of `ubt poison`, or a CSV or JSON list of rows (`index`, from 0) or image files (`image`)"
)


class PoisonedPair(Config):
    """One pair that the attacker replaced."""

    index: int = Field(ge=0)
    """Its row of `pairs.csv`, from 0."""
    image: str
    """Its file, relative to the folder."""
    caption: str
    original_caption: str


class PoisonList(Config):
    """What the `manifest.json` of `ubt poison` says: which pairs are poisoned, and with what."""

    study: str
    seed: int
    attack: dict[str, JsonValue]
    attack_files: dict[str, str] = Field(default_factory=dict)
    """Setting → SHA-256 of each file that the attack reads."""
    image_size_px: int
    pairs: int
    """Number of all pairs, poisoned or not."""
    poisoned: tuple[PoisonedPair, ...]
    decoys: tuple[int, ...]
    """Rows of clean images whose captions the attacker changed without naming the target."""
    trigger: str | None = None
    """Picture of the trigger, relative to the folder, if the attack learnt it."""
    trigger_sha256: str = ""
    """Of that file."""


@dataclass(frozen=True)
class ListedPair:
    """A pair that a list says is poisoned, by its row, its image file or both."""

    where: str
    """The entry in words, for messages."""
    index: int | None = None
    image: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class GivenList:
    """Which of given pairs are poisoned, as a file says it, before it is compared with them."""

    source: str
    poisoned: Sequence[ListedPair]
    decoys: Sequence[int] = ()
    pairs: int | None = None
    """How many pairs there are, if the list says so."""
    attack: Mapping[str, JsonValue] | None = None
    """What they are poisoned with, if the list says so."""
    attack_files: Mapping[str, str] = field(default_factory=dict)
    """Setting → SHA-256 of each file that the attack read."""
    trigger: Path | None = None
    """Picture of a learnt trigger."""


def read_poison_list(path: Path) -> GivenList:
    """Return what a list of poisoned pairs says.

    Raises:
        UserError: with every mistake in it.
    """
    if not is_file(path):
        raise UserError(Problem("victim.poison.manifest", "there is no such file", str(path), HOW_TO_LIST))
    found = _read(stamp(path))
    if isinstance(found, UserError):
        raise UserError(found.problems)
    return found


@lru_cache(maxsize=32)
def _read(stamped: Stamp) -> GivenList | UserError:
    """Return what a file says or what is wrong with it, read once however many configurations there are to check."""
    path = Path(stamped[0])
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = _from_json(path, text) if text.lstrip()[:1] in {"{", "["} else _from_table(path, text)
    except UserError as error:
        return error
    except (OSError, UnicodeDecodeError) as error:
        return UserError(Problem("victim.poison.manifest", f"cannot be read: {error}", str(path), HOW_TO_LIST))
    if not found.poisoned:
        advice = "leave `manifest` out if it is not known what is poisoned"
        return UserError(Problem(str(path), "lists no poisoned pair", advice=advice))
    return found


def _from_json(path: Path, text: str) -> GivenList:
    try:
        document = json.loads(text)
        if isinstance(document, list):
            return GivenList(str(path), [_entry(f"{path}: entry {n}", one) for n, one in enumerate(document)])
        listed = PoisonList.model_validate(document)
    except (ValueError, RecursionError) as error:  # a `ValidationError` is one
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(Problem(str(path), f"is no list of poisoned pairs: {reason}", advice=HOW_TO_LIST)) from error
    pairs = [
        ListedPair(f"{path}: poisoned.{number}", pair.index, pair.image, pair.caption)
        for number, pair in enumerate(listed.poisoned)
    ]
    trigger = _trigger(path, listed)
    return GivenList(str(path), pairs, listed.decoys, listed.pairs, listed.attack, listed.attack_files, trigger)


def _trigger(path: Path, listed: PoisonList) -> Path | None:
    if listed.trigger is None:
        return None
    trigger = path.parent / listed.trigger
    try:
        unchanged = digest_file(trigger) == listed.trigger_sha256
    except OSError as error:
        raise UserError(Problem(str(path), f"the learnt trigger cannot be read: {error}")) from error
    if not unchanged:
        raise UserError(Problem(str(path), "the learnt trigger is another picture than that was written", str(trigger)))
    return trigger


_COLUMNS = {
    "index": ("index", "row"),
    "image": ("image", "filepath", "file", "filename", "path", "image_path"),
    "caption": ("caption", "title", "text"),
    "flag": ("is_backdoor", "backdoor", "is_poisoned", "poisoned"),
}
"""What the columns of a list may be called."""
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


def _from_table(path: Path, text: str) -> GivenList:
    """Return what a CSV or TSV says, or a text with one row or image file a line."""
    header = text.partition("\n")[0]
    separator = next((mark for mark in "\t;" if mark in header), ",")
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise UserError(Problem(str(path), f"is no valid CSV: {error}", advice=HOW_TO_LIST)) from error
    names = [name.strip().lower() for name in lines[0]] if lines else []
    columns = {what: names.index(name) for what, known in _COLUMNS.items() for name in known if name in names}
    if "index" not in columns and "image" not in columns and "flag" not in columns:
        if len(names) > 1:
            found = ", ".join(names)
            raise UserError(Problem(str(path), f"has no column `index` or `image`; found: {found}", advice=HOW_TO_LIST))
        return GivenList(str(path), [_entry(f"{path}: row {n}", line[0]) for n, line in enumerate(lines, 1) if line])
    problems: list[Problem] = []
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if line]
    pairs = []
    for position, (number, line) in enumerate(rows):
        where = f"{path}: row {number}"
        cells = {what: line[at].strip() for what, at in columns.items() if at < len(line)}
        flag = _FLAGS.get(cells.get("flag", "1").lower())
        if len(cells) < len(columns):
            problems.append(Problem(where, f"has {len(line)} cells where the header has {len(names)}"))
        elif flag is None:
            problems.append(Problem(where, "says neither 1 nor 0 whether the pair is poisoned", cells["flag"]))
        elif "index" in columns and not _is_row(cells["index"]):
            problems.append(Problem(where, "the row of a pair is a whole number from 0", cells["index"]))
        elif flag:
            numbered = int(cells["index"]) if "index" in columns else None
            if "index" not in columns and "image" not in columns:
                numbered = position  # a list of all pairs in their order
            pairs.append(ListedPair(where, numbered, cells.get("image"), cells.get("caption")))
    raise_if_any(problems)
    whole = len(rows) if "flag" in columns and "index" not in columns and "image" not in columns else None
    return GivenList(str(path), pairs, pairs=whole)


def _is_row(text: str) -> bool:
    return text.isdecimal() and len(text) < 19  # as many digits as an int64 holds


def _entry(where: str, given: object) -> ListedPair:
    """Return what one entry of a plain list stands for: a row, or an image file."""
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return ListedPair(where, index=given)
    if isinstance(given, str) and given.strip():
        text = given.strip()
        return ListedPair(where, index=int(text)) if _is_row(text) else ListedPair(where, image=text)
    raise UserError(Problem(where, "is neither a row from 0 nor an image file", given, HOW_TO_LIST))
