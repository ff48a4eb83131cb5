"""Studies spoilt at random: in their values, keys, nesting and text. The same seed, the same studies."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from sweeps.search import DESIGNS
from sweeps.study.builtin import builtin_studies
from sweeps.study.loading import load_study
from ubt.attacks import ATTACKS
from ubt.defenses import DEFENSES
from ubt.defenses.detectors import DETECTORS

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Node = dict[str, Any] | list[Any]

WORDS = [
    *(
        "",
        " ",
        "yes",
        "on",
        "no",
        "true",
        "null",
        "~",
        "inf",
        "nan",
        "0x10",
        "1_000",
        " 1 ",
        "1e-5",
        "-1",
        "3",
        "2024-01-01",
    ),
    *(
        "ä",
        "名前",
        "🧨",
        "\u202e",
        "\ufeff",
        "a\tb",
        "a\nb",
        "a/b",
        "../..",
        "~nobody/x",
        "%20",
        "?",
        "#",
        "a b",
        "${HOME}",
    ),
    *(
        "x" * 300,
        "x/" * 3000,
        "{",
        "{}",
        "{0}",
        "%s",
        "<b>",
        "'; DROP",
        "defense.kind",
        "victim.",
        ".",
        "..",
        "defense",
    ),
    *("sqlite:///", "file:///x", "memory://x", "ubt", "none", "knn", "sig", "csv", "grid", "optuna", "smoke"),
]
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    0.5,
    1.0,
    1e-5,
    -0.0,
    1e300,
    -1e300,
    5e-324,
    10**6,
    10**9,
    2**31,
    2**63 - 1,
    2**63,
    10**30,
    512,
]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], {"": None}, {"kind": None}, {"low": 0, "high": 1}]
LARGE: list[Any] = [
    {"low": 0, "high": 10**9},
    {"low": 0, "high": 1, "step": 1e-9},
    {"low": 1, "high": 10**6, "log": True},
]
TEXTS = [
    "\0",
    "\t",
    "\r",
    "\ufeff",
    "&a ",
    "*a ",
    "&a [*a]",
    "<<: *a",
    "!!python/name:os.system ",
    "!x ",
    "---\n",
    "...\n",
    "%",
]
TEXTS += [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "- ",
    "|",
    ">",
    "'",
    '"',
    "#",
    "?",
    "@",
    "`",
    "\\",
    "9" * 5000,
    "[" * 3000,
    "\ud800",
    "é",
]


def trees() -> dict[str, dict[str, Any]]:
    """Return the built-in studies: as they are written, and with every field that they have."""
    written = {name: yaml.safe_load(path.read_text()) for name, path in builtin_studies().items()}
    whole = {f"{name} whole": json.loads(json.dumps(load_study(name).as_json())) for name in written}
    mine = {
        "mine": {"extends": "smoke", "seeds": [1, 2], "plugins": [], "store": "artifacts", "metrics": ["retrieval"]}
    }
    return {**written, **whole, **mine}


def spoilt(random: Random, known: dict[str, dict[str, Any]]) -> bytes:
    """Return a study's file with one to four things wrong with it, most often."""
    tree: Any = copy.deepcopy(known[random.choice(list(known))])
    for _ in range(random.choice([0, 1, 1, 1, 2, 3, 4])):
        tree = random.choice(CHANGES)(random, tree)
    text = json.dumps(tree) if random.random() < 0.5 else yaml.dump(tree, Dumper=DUMPER, allow_unicode=True)
    if random.random() < 0.25:
        for _ in range(random.choice([1, 1, 2, 5])):
            text = _spoilt_text(random, text)
    encoding = random.choice(["utf-8"] * 30 + ["utf-16", "latin-1"])
    return text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")


def assignment(random: Random, known: dict[str, dict[str, Any]]) -> str:
    """Return what may be given to `--set`, most often something wrong."""
    tree = known[random.choice(list(known))]
    steps = random.choice(list(_places(tree)) or [("name",)])
    path = ".".join(map(str, steps)) + random.choice(["", "", "", ".x", ".0", ".", '"', "." + random.choice(WORDS)])
    value = random.choice([json.dumps(_nasty(random)), random.choice(WORDS), random.choice(TEXTS)])
    return (path + "=" + value).replace("\0", "")


def _places(node: Any, steps: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in parts:
        yield (*steps, key)
        yield from _places(part, (*steps, key))


def _at(tree: Any, steps: tuple[str | int, ...]) -> Any:
    for step in steps:
        tree = tree[step]
    return tree


def _nasty(random: Random) -> Any:
    return copy.deepcopy(random.choice(random.choice([WORDS, NUMBERS, OTHERS, LARGE])))


def _changed(change: Callable[[Random, Any, Node, Any], None]) -> Callable[[Random, Any], Any]:
    """Return what changes a random place of a tree: `change` gets its value, what holds it, and its key."""

    def changed(random: Random, tree: Any) -> Any:
        places = list(_places(tree))
        if places:
            steps = random.choice(places)
            holder = _at(tree, steps[:-1])
            change(random, holder[steps[-1]], holder, steps[-1])
        return tree

    return changed


def _swap(random: Random, value: Any, holder: Any, key: Any) -> None:
    holder[key] = _nasty(random)


def _scale(random: Random, value: Any, holder: Any, key: Any) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = random.choice(
            [-value, value * 1000, value * 10**9, value + 0.5, value / 3, str(value), [value, value]]
        )
    else:
        holder[key] = [value, value]


def _vary(random: Random, value: Any, holder: Any, key: Any) -> None:
    """Put something in the place that may well be allowed there."""
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int | float):
        holder[key] = random.choice([1, 2, 10, value * 2, value / 2, value + 1])
    elif isinstance(value, list) and value:
        holder[key] = random.sample(value, random.randrange(len(value)) + 1)
    elif isinstance(value, str):
        holder[key] = random.choice([*ATTACKS.names(), *DEFENSES.names(), *DETECTORS.names(), *DESIGNS.names()])


def _rename(random: Random, value: Any, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        del holder[key]
        letters = list(str(key)) or ["x"]
        random.shuffle(letters)
        holder[random.choice([*WORDS, "".join(letters), f"{key}s", f"defense.{key}", str(key)[:-1]])] = value


def _delete(random: Random, value: Any, holder: Any, key: Any) -> None:
    del holder[key]


def _repeat(random: Random, value: Any, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.extend([copy.deepcopy(value)] * random.choice([1, 1, 3, 200]))
    else:
        holder[f"{key}{random.choice(['', '2', ' ', '.x'])}"] = copy.deepcopy(value)


def _wrap(random: Random, value: Any, holder: Any, key: Any) -> None:
    for _ in range(random.choice([1, 1, 1, 2, 5, 70])):
        value = random.choice([[value], {"kind": value}, {str(key): value}, {"low": value, "high": 1}])
    holder[key] = value


def _add(random: Random, value: Any, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[random.choice([*WORDS, "kind", "design", "space", "when", "attack", "search", "extends", "plugins"])] = (
            _nasty(random)
        )
    else:
        holder.append(_nasty(random))


def _move(random: Random, value: Any, holder: Any, key: Any) -> None:
    """Put a part of another study in the place."""
    other = yaml.safe_load(random.choice(list(builtin_studies().values())).read_text())
    holder[key] = _at(other, random.choice(list(_places(other))))


CHANGES = [
    _changed(change)
    for change in (_swap, _swap, _swap, _scale, *[_vary] * 6, _rename, _delete, _repeat, _wrap, _add, _move)
]


def _spoilt_text(random: Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    lines = text.splitlines(keepends=True) or [""]
    line = random.randrange(len(lines))
    return random.choice(
        [
            text[:at] + random.choice(TEXTS) + text[at:],
            text[:at] + text[at + random.choice([1, 2, 9]) :],
            text[:at],
            "".join(lines[: line + 1] + lines[line:]),
            "".join([*lines[:line], random.choice([" ", "\t", "  "]), *lines[line:]]),
            "".join(lines[:line] + lines[line + 1 :]),
        ]
    )


def write_spoilt(folder: Path, number: int, known: dict[str, dict[str, Any]], seed: int = 0) -> list[str]:
    """Write the study of a number, and return what follows `ubt plan` on the command line."""
    random = Random(f"{seed}-{number}")
    path = folder / f"s{number}.yaml"
    path.write_bytes(spoilt(random, known))
    words = [str(path)]
    while random.random() < 0.15:
        words += ["--set", assignment(random, known)]
    return words
