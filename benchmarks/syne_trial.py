"""A trial of `sharing.py` as Syne Tune's local backend runs it: a process of its own, knobs by the command line.

It runs all stages of its configuration and reports ASR, as somebody would who tunes UBT with Syne Tune.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from uuid import uuid4


def main() -> None:
    """Run the configuration, leave its rates in a file, and report them."""
    from sharing import alone, identity  # noqa: PLC0415 — in this folder, which a test of the module has not on its path
    from syne_tune import Reporter  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    known, rest = parser.parse_known_args()
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    about = json.loads((known.folder / "template.json").read_text())
    knobs = {path: type(values[0])(given[f"--{named(path)}"]) for path, values in about["space"].items()}
    rates = alone(about["template"], knobs, known.folder / "stores")
    (known.folder / "rates" / f"{uuid4().hex}.json").write_text(json.dumps([identity(knobs), rates]))
    Reporter()(asr=rates[0], ca=rates[1])


def named(path: str) -> str:
    """Return a knob's name as an argument has it."""
    return path.replace(".", "-")


if __name__ == "__main__":
    main()
