"""YAML and JSON from outside, as plain values: within limits, and each mistake in them is one message.

YAML is read as its version 1.2 has it: `true` and `false` are the only truth values (`yes`, `on` and `no` are text), a
number is a decimal one, `1e-5` among them, and dates are text. Tags that make anything else are refused. Aliases may
repeat a part, and `<<` may merge one, as long as what they stand for stays small when it is written out.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from pydantic import JsonValue

from ubt.common.errors import Problem, UserError
from ubt.config.dotted_paths import DEEPEST, JsonObject
from ubt.config.strict import LARGEST_WHOLE, number_in
from ubt.config.yaml_text import TOO_DEEP, Refused, check_text, values_in

MOST_BYTES = 32 * 2**20
"""Largest document that is read."""


def read_yaml(path: Path) -> JsonObject:
    """Return the mapping in a YAML file.

    Raises:
        UserError: if the file cannot be read, is not YAML, goes beyond a limit, or holds no mapping.
    """
    loaded = parse_yaml(read_text(path), str(path))
    if not isinstance(loaded, dict):
        raise UserError(Problem(str(path), "must hold a mapping (name: …, victim: …)", given=loaded))
    return loaded


def read_json(path: Path) -> JsonObject:
    """Return the object in a JSON file.

    Raises:
        UserError: if the file cannot be read, is not JSON, goes beyond a limit, or holds no object.
    """
    text = read_text(path)
    try:
        loaded: JsonValue = json.loads(text, parse_int=_whole)
        _check_json(loaded)
    except RecursionError as error:
        raise UserError(Problem(str(path), f"cannot be read: {TOO_DEEP}")) from error
    except ValueError as error:  # `Refused` and what JSON's decoder raises
        raise UserError(Problem(str(path), f"cannot be read: {error}")) from error
    if not isinstance(loaded, dict):
        raise UserError(Problem(str(path), "must hold a JSON object", given=loaded))
    return loaded


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file, UTF-8 with or without a byte-order mark.

    Raises:
        UserError: if it is no regular file (a folder, a device, a pipe), is too large, is no text, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe without a writer would be waited for
            raise Refused("it is no file with text in it")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise Refused(f"it is larger than {most_bytes // 2**20} MiB")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"cannot be read: it is no UTF-8 text ({error.reason} at byte {error.start})"
        raise UserError(Problem(_printable(path), message)) from error
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL in it, among them
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(Problem(_printable(path), f"cannot be read: {reason}")) from error


def parse_yaml(text: str, where: str) -> JsonValue:
    """Return what a YAML document holds.

    Args:
        text: the document.
        where: what it is called in messages.

    Raises:
        UserError: if it is not YAML, goes beyond a limit, or holds what is no plain value; with line and column.
    """
    try:
        check_text(text)
        return values_in(text)
    except (Refused, RecursionError) as error:
        raise UserError(Problem(where, str(error) or TOO_DEEP)) from error
    except yaml.YAMLError as error:
        words = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = text.splitlines()[mark.line : mark.line + 1] if mark else []
        advice = "indent with spaces, not with tabs" if any("\t" in one for one in line) else ""
        raise UserError(Problem(where, f"is not valid YAML: {words}", advice=advice)) from error


def parse_assignment(text: str) -> tuple[str, JsonValue]:
    """Split `path=value` as given to `--set`; the value is read as YAML (`0.1`, `true`, `[1, 2]`, `banana`).

    Raises:
        UserError: if there is no `=`, no path, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(Problem("--set", "needs PATH=VALUE", given=text, advice="e.g. defense.overfit_epochs=3"))
    where = f"--set {path if len(path) <= _SHOWN else path[:_SHOWN] + '…'}"
    parse_text(path, where)
    return path.strip(), parse_yaml(value, where)


_SHOWN = 120


def parse_text(text: str, where: str) -> str:
    """Return `text`; `UserError` if it holds what is no text (NUL, half a surrogate pair)."""
    try:
        check_text(text)
    except Refused as error:
        raise UserError(Problem(_printable(where), str(error))) from error
    return text


def _whole(text: str) -> int:
    """Return a whole number of a JSON document."""
    number = number_in(text)
    if not isinstance(number, int) or abs(number) > LARGEST_WHOLE:
        raise Refused(f"the number {text[:20]}… is too large")
    return number


def _check_json(value: JsonValue) -> None:
    """Raise `Refused` if a document is nested too deep, or a text in it is none."""
    level: list[JsonValue] = [value]
    for _ in range(DEEPEST + 1):
        below: list[JsonValue] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                check_text(one)
        if not below:
            return
        level = below
    raise Refused(f"it {TOO_DEEP}")


def _printable(text: object) -> str:
    shown = str(text).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return shown if len(shown) <= 2 * _SHOWN else shown[: 2 * _SHOWN] + "…"
