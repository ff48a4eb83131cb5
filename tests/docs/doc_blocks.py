"""The fenced blocks of README and docs, and the commands in them.

A block runs unless the page says `<!-- not run: reason -->` in the line before it. Its commands are parsed in any case.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference"))
_FENCE = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str
    text: str
    reason_not_run: str

    @property
    def where(self) -> str:
        return f"{name(self.page)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """Return the words of each command; `&&` separates two, a backslash continues a line."""
        lines = re.sub(r"\\\n", " ", self.text).splitlines()
        return [words for line in lines for part in line.split("&&") if (words := shlex.split(part, comments=True))]


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    text = page.read_text(encoding="utf-8")
    return tuple(_blocks(page, text))


def _blocks(page: Path, text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        language, _, rest = found["info"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        line = text.count("\n", 0, found.start("info")) + 1
        yield Block(page, line, language, title[1] if title else "", found["text"], found["reason"] or "")


def all_blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


@cache
def ubt_module():
    """Return the module behind the `ubt` command, which `pyproject.toml` names."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return importlib.import_module(scripts["ubt"].partition(":")[0])


def ubt(monkeypatch, *words: str) -> int:
    """Run `ubt` with these words in this process, and return its exit status."""
    from sweeps.cli.app import main  # `main` of `ubt_module` ends the process: the tests would end with it, unsaid

    monkeypatch.setattr(sys, "argv", ["ubt", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def script(file: str):
    """Return a script of `docs/` as a module."""
    path = ROOT / "docs" / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
