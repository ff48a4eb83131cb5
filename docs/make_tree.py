"""Write what the architecture page shows of the sources, `make tree`: the imports among sub-packages, and the tree.

The tree has one line a file, the first of its docstring. Imports are read off the sources, those inside functions and
for type checking included.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("ubt", "sweeps", "analysis")
OTHERS = {
    "tests/": "mirror the tree; `conftest.py` shares one tiny victim, `tests/docs/` runs what README and docs say",
    "docs/": "the site; `make_reference.py`, `make_tree.py` and `pictures.py` write what can be generated",
    "benchmarks/": "what docs/performance.md measures, each a script",
    "deploy/": "sweeps on clusters: `slurm/`, `kuberay/`, `Dockerfile`, `aws/` (for `cluster.yaml`), `workstations.md`",
    "mkdocs.yml": "the site's settings",
    "cluster.yaml": "a Ray cluster-launcher file: one CPU head, GPU workers that come and go",
    "Makefile": "`demo`, `install`, `test`, `check`, `clusters`, `docs`, `format`, `lock`, `image`, `tree`, `fuzz`, …",
    "requirements.lock": "every dependency with hashes, for CUDA 13; `requirements-cuda12.lock` for CUDA 12",
    ".ci/run": "what CI runs: `make check`, and a part of `make clusters`",
}
WIDTH = 34


def tree_lines() -> list[str]:
    """Return the tree of the repository, a line for each file of the packages."""
    lines = [line for package in PACKAGES for line in _package_lines(ROOT / package)]
    return lines + [f"{name:<{WIDTH}}{text}" for name, text in OTHERS.items()]


def imports_lines() -> list[str]:
    """Return a table for each package: which of its sub-packages imports which, and by how many imports."""
    lines: list[str] = []
    for package in PACKAGES:
        arrows = _arrows(package)
        order = _from_the_ground_up(arrows, {_part(path) for path in (ROOT / package).rglob("*.py")} - {package})
        lines += [f"| `{package}`: imports of … in … | {' | '.join(f'`{part}`' for part in order)} |"]
        lines += ["|---|" + "---:|" * len(order)]
        for part in order:
            counts = (str(arrows[part, other]) if arrows[part, other] else "" for other in order)
            lines += [f"| `{part}` | {' | '.join(counts)} |"]
        lines += [""]
    return [*lines, *_size_lines()]


def _arrows(package: str) -> Counter[tuple[str, str]]:
    """Return how many imports lead from each sub-package, or module at the top of a package, to each other."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                words = name.split(".")
                if words[0] == package and len(words) > 1 and words[1] != _part(path) and _is_module(words[:2]):
                    found[_part(path), words[1]] += 1
    return found


def _is_module(words: list[str]) -> bool:
    path = ROOT.joinpath(*words)
    return path.is_dir() or path.with_suffix(".py").is_file()


def _part(path: Path) -> str:
    """Return the sub-package, or the module at the top of a package, that a file belongs to."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if parts[1] == "__init__.py" else parts[1].removesuffix(".py")


def _from_the_ground_up(arrows: Counter[tuple[str, str]], parts: set[str]) -> list[str]:
    """Return the parts in an order in which each imports only those before it; by name where that leaves a choice."""
    order: list[str] = []
    while parts:
        free = sorted(part for part in parts if not any(arrows[part, other] for other in parts - {part}))
        if not free:
            raise ValueError(f"these import each other in a circle: {', '.join(sorted(parts))}")
        order.append(free[0])
        parts = parts - {free[0]}
    return order


def _size_lines() -> list[str]:
    """Return in words how the sources are cut: lines, modules, folders."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    folders = Counter(path.parent for path in files)
    lines, fullest = sum(lengths.values()), max(folders, key=lambda folder: folders[folder])
    longest = max(lengths, key=lambda path: lengths[path])
    return [
        f"{len(files)} modules, {lines:,} lines: {1000 * len(files) / lines:.1f} modules for each 1,000 lines. "
        f"Most in one folder: {folders[fullest]} (`{fullest.relative_to(ROOT)}`). "
        f"Longest file: {lengths[longest]} lines (`{longest.relative_to(ROOT)}`)."
    ]


def written_anew(page: str) -> str:
    """Return a page with what is between its marks written anew; `ValueError` if marks are missing."""
    tree = "\n".join(["```text", *tree_lines(), "```"])
    return _between(_between(page, "tree", tree), "imports", "\n".join(imports_lines()))


def _between(page: str, mark: str, text: str) -> str:
    head, rest = page.split(f"<!-- {mark} -->")
    _, tail = rest.split(f"<!-- /{mark} -->")
    return f"{head}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{tail}"


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
    PAGE.write_text(written_anew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
