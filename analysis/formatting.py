"""How numbers, settings, attacks, defenses and victims read in figures, tables and the report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from ubt.common.errors import UserError
from ubt.common.formatting import part_text
from ubt.common.registry import Registry
from ubt.config import difference, get_path
from ubt.config.dotted_paths import JsonObject
from ubt.trials.record import TrialRecord


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal: `0.0364` → `3.6%`."""
    return f"{100 * fraction:.1f}%"


def tenths(fraction: float) -> int:
    """Return a fraction in tenths of a percent, rounded as `percent` rounds it: `0.0364` → 36.

    A number that was rounded to more digits first could be rounded the other way in the end.
    """
    return round(10 * float(f"{100 * fraction:.1f}"))


def points(fraction: float) -> str:
    """Return a difference of rates in percentage points: `0.02` → `2 points`."""
    number = f"{100 * fraction:.2f}".rstrip("0").rstrip(".")
    return f"{number} {'point' if number == '1' else 'points'}"


def signed(fraction: float, decimals: int = 1) -> str:
    """Return a difference of rates in points with its sign: `+1.2`, `−0.4`, `0.0`."""
    number = f"{100 * fraction:.{decimals}f}"
    if float(number) == 0:
        return number.removeprefix("-")
    return number.replace("-", "−") if fraction < 0 else f"+{number}"


def movement(before: float, after: float, clear: bool = True) -> str:
    """Say how a rate moved, as it reads after rounding: `falls from 88.5% to 3.6%`, `stays at 82.4%`.

    One that does not clearly differ has not moved, as far as is known: `does not clearly change (82.4%, then 81.9%)`.
    """
    old, new = percent(before), percent(after)
    if old == new:
        return f"stays at {new}"
    if not clear:
        return f"does not clearly change ({old}, then {new})"
    return f"{'falls' if after < before else 'rises'} from {old} to {new}"


def count(number: int, noun: str) -> str:
    """Return a counted noun: `1 trial`, `81 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return for each dotted path the shortest ending that no other of the paths has."""
    paths = tuple(paths)
    return {path: _shortest(path, [other for other in paths if other != path]) for path in paths}


def _shortest(path: str, others: list[str]) -> str:
    parts = path.split(".")
    endings = (".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1))
    return next((e for e in endings if not any(f".{other}".endswith(f".{e}") for other in others)), path)


def setting_text(value: JsonValue) -> str:
    """Return a setting as a person would write it: `0.03`, `64`, `2e-4`, `yes`, `suspicious`, `knn (neighbours 16)`."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, dict) and "kind" in value:
        return part_text(value, setting_text)
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting_text(part)}" for name, part in value.items())
    return ", ".join(map(setting_text, value)) if isinstance(value, list) else str(value)


def _float_text(value: float) -> str:
    """Return `0.03` and `64`, but `2e-4`: learning rates differ by their exponents."""
    if 0 < abs(value) < 1e-3:
        digits, _, exponent = f"{value:.3e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:g}"


def changes_text(changes: Mapping[str, JsonValue], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return one `name = value` for each change, with the names of `short_names`; `base` for no change.

    The spaces around `=` do not break.
    """
    texts = (f"{names.get(path, path)}\u00a0=\u00a0{setting_text(value)}" for path, value in changes.items())
    return tuple(texts) or ("base",)


def attack_name(kind: str) -> str:
    """Return what an attack is called: its `label`, or its kind in words where it has none or is not installed."""
    from ubt.attacks import ATTACKS  # noqa: PLC0415 — 0.2 s, and only names need it

    return _label(ATTACKS, kind) or kind.replace("_", " ")


def defense_name(kind: str) -> str:
    """Return what a defense is called: its `label`, or its kind in words where it has none or is not installed."""
    from ubt.defenses import DEFENSES  # noqa: PLC0415 — 0.2 s, and only names need it

    return _label(DEFENSES, kind) or kind.replace("_", " ")


def _label(registry: Registry[Any], kind: str) -> str:
    try:
        return str(registry.get(kind).label) if kind in registry else ""
    except UserError:  # a plug-in that cannot be imported here: its run can be read all the same
        return ""


def kind_at(config: Mapping[str, JsonValue], path: str) -> str:
    """Return the `kind` of the part of a configuration at a path, "" if it has none."""
    try:
        return str(get_path(config, f"{path}.kind"))
    except KeyError:
        return ""


def victim_key(record: TrialRecord) -> str:
    """Return a trial's victim as JSON: equal for equal victims."""
    return json.dumps(record.config.get("victim"), sort_keys=True)


def victim_names(records: Iterable[TrialRecord]) -> dict[str, str]:
    """Return what each victim is called, by its key: its attack, and what sets it apart from others of that name."""
    victims: dict[str, JsonObject] = {}
    named: dict[str, str] = {}
    for record in records:
        key, victim = victim_key(record), record.config.get("victim")
        victims.setdefault(key, victim if isinstance(victim, dict) else {})
        named[key] = named.get(key) or _attack_of(record)
    alike: dict[str, list[JsonObject]] = {}
    for key, name in named.items():
        alike.setdefault(name, []).append(victims[key])
    return {
        key: f"{name} ({_apart(victims[key], alike[name])})" if len(alike[name]) > 1 else name
        for key, name in named.items()
    }


def _attack_of(record: TrialRecord) -> str:
    """Return what a trial's attack is called: as the comparison names it, unless that is another attack's name."""
    from ubt.attacks import ATTACKS  # noqa: PLC0415 — 0.2 s, and only names need it

    kind, cell = kind_at(record.config, "victim.attack"), record.label.cell
    return attack_name(kind if cell is None or (kind and cell.attack in ATTACKS) else cell.attack)


def _apart(victim: JsonObject, alike: Sequence[JsonObject]) -> str:
    """Return the settings in which `alike` differ, as this victim has them."""
    paths = dict.fromkeys(path for other in alike for path in (*difference(other, victim), *difference(victim, other)))
    own: dict[str, JsonValue] = {}
    for path in paths:
        try:
            own[path] = get_path(victim, path)
        except KeyError:
            own[path] = None
    return ", ".join(changes_text(own, short_names(own)))


LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
    "→": r"$\to$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "–": "--",
    "’": "'",
    "‘": "`",
    "\u00a0": "~",
}
"""What LaTeX prints for a letter that it would read as something else, or does not have."""
