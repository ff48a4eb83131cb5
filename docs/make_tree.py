"""Write the architecture page's tree, one line a file, from the first line of each file's docstring: `make tree`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree -->", "<!-- /tree -->"
PACKAGES = ("ubt", "sweeps", "analysis")
OTHERS = {
    "tests/": "mirror the tree; `conftest.py` shares one tiny victim, `tests/docs/` runs what README and docs say",
    "docs/": "the site; `make_reference.py`, `make_tree.py` and `pictures.py` write what can be generated",
    "benchmarks/": "what docs/performance.md measures, each a script",
    "mkdocs.yml": "the site's settings",
    "cluster.yaml": "a Ray cluster-launcher file: one CPU head, GPU workers that come and go",
    "Makefile": "`demo`, `install`, `test`, `check`, `docs`, `format`, `lock`, `tree`",
    "requirements.lock": "every dependency with version and hashes",
    ".ci/run": "what CI runs: `make check`",
}
WIDTH = 34


def tree_lines() -> list[str]:
    """Return the tree of the repository, a line for each file of the packages."""
    lines = [line for package in PACKAGES for line in _package_lines(ROOT / package)]
    return lines + [f"{name:<{WIDTH}}{text}" for name, text in OTHERS.items()]


def with_tree(page: str) -> str:
    """Return a page with the tree between its marks written anew; `ValueError` if they are missing."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    block = "\n".join(["```text", *tree_lines(), "```"])
    return f"{head}{BEGIN}\n{block}\n{END}{tail}"


def _package_lines(folder: Path, depth: int = 0) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent + folder.name + '/':<{WIDTH}}{_first_line(folder / '__init__.py')}".rstrip()
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and any(path.glob("*.py")):
            yield from _package_lines(path, depth + 1)
        elif path.is_dir() and not path.name.startswith("__"):
            names = ", ".join(sorted(child.name for child in path.iterdir() if child.is_file()))
            yield f"{indent + '  ' + path.name + '/':<{WIDTH}}{names}"
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield f"{indent + '  ' + path.name:<{WIDTH}}{_first_line(path)}"


def _first_line(path: Path) -> str:
    """Return a module's first sentence."""
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ""
    line = (words or "").split("\n")[0].rstrip(".")
    return line.split(". ")[0]


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
