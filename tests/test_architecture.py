"""The rules of the architecture: which package imports which, and what none does. Read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ubt", "analysis", "sweeps")


@cache
def sources(package: str) -> dict[str, ast.Module]:
    """Return path below the repository → syntax tree, for every file of a package."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted((ROOT / package).rglob("*.py"))}


def everything() -> dict[str, ast.Module]:
    return {path: tree for package in PACKAGES for path, tree in sources(package).items()}


def imports(tree: ast.AST, top_only: bool = False) -> Iterator[str]:
    """Yield the dotted name of all that is imported, also inside functions and for type checking."""
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def without_type_checking(tree: ast.Module) -> ast.Module:
    """Return a tree without what is imported for type checking alone: it is never run."""

    class Remover(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node

    return Remover().visit(ast.parse(ast.unparse(tree)))


def importers(package: str) -> set[str]:
    """Return the files that import a package."""
    return {path for path, tree in everything().items() if any(name.split(".")[0] == package for name in imports(tree))}


def as_file(name: str) -> str | None:
    """Return the file that a dotted name of this repository is (in); None for other packages."""
    whole = Path(*name.split("."))
    if whole.parts[0] not in PACKAGES:
        return None
    nearer, farther = (f"{whole}.py", f"{whole}/__init__.py"), (f"{whole.parent}.py", f"{whole.parent}/__init__.py")
    return next((path for path in (*nearer, *farther) if (ROOT / path).is_file()), None)


# Packages

FORBIDDEN = {
    "ubt": {"ray", "optuna", "mlflow", "analysis", "sweeps", "benchmarks", "tests"},
    "analysis": {"torch", "open_clip", "ray", "mlflow", "sweeps", "benchmarks", "tests"},
    "sweeps": {"benchmarks", "tests"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_reaches_into_those_above_it(package):
    found = {
        (path, name)
        for path, tree in sources(package).items()
        for name in imports(tree)
        if name.split(".")[0] in FORBIDDEN[package]
    }
    assert not found


HOMES = {
    "ray": {
        "sweeps/backends/connection.py",
        "sweeps/backends/execute.py",
        "sweeps/backends/lifetime.py",
        "sweeps/backends/node_tasks.py",
        "sweeps/backends/order.py",
        "sweeps/backends/private.py",
        "sweeps/backends/searcher.py",
        "sweeps/backends/trainable.py",
        "sweeps/backends/watch.py",
        "sweeps/detached/jobs.py",
    },
    "optuna": {
        "analysis/effects/evaluators.py",
        "analysis/optuna_journal.py",
        "sweeps/search/curves/sampler.py",
        "sweeps/search/optuna_points.py",
        "sweeps/search/optuna_proposer.py",
        "sweeps/search/optuna_samplers.py",
        "sweeps/search/optuna_storage.py",
    },
    "mlflow": {"sweeps/tracking/mlflow_sink.py", "sweeps/tracking/model/logged.py"},
    "fsspec": {
        "ubt/artifacts/remote_folder.py",
        "ubt/artifacts/store_files.py",
        "ubt/data/addresses/clouds.py",
    },
    "safetensors": {
        "analysis/paper/artifacts.py",
        "ubt/artifacts/codec.py",
        "ubt/artifacts/exporting/files.py",
        "ubt/models/checkpoints.py",
    },
    "typer": {
        "sweeps/cli/app.py",
        "sweeps/cli/clean.py",
        "sweeps/cli/detached.py",
        "sweeps/cli/options.py",
        "sweeps/cli/runs/compare.py",
        "sweeps/cli/runs/replay.py",
        "sweeps/cli/runs/table.py",
        "sweeps/cli/runs/watch.py",
        "sweeps/cli/store.py",
        "sweeps/cli/sweep.py",
        "sweeps/cli/tracking.py",
    },
}
"""Packages that one part of a package is built on, and the only files that know them."""


@pytest.mark.parametrize("package", HOMES)
def test_a_package_is_known_in_as_few_files_as_today(package):
    assert importers(package) == HOMES[package]


def needs_torch(path: str) -> bool:
    """Tell whether importing a file imports torch, through other files too."""
    queue, seen = [path], {path}
    while queue:
        names = list(imports(everything()[queue.pop()], top_only=True))
        if any(name.split(".")[0] in {"torch", "open_clip", "torchvision"} for name in names):
            return True
        new = {file for file in map(as_file, names) if file} - seen
        seen |= new
        queue += new
    return False


def test_analysis_uses_only_what_loads_no_torch():
    used = {as_file(name) for tree in sources("analysis").values() for name in imports(tree)} - {None}
    assert {path for path in used if needs_torch(path)} == set()
    assert needs_torch("ubt/engine/runner.py"), "or the test would find nothing"


LIGHT = [
    "analysis",
    "sweeps",
    "sweeps.cli.app",
    "sweeps.planning.plan",
    "ubt.trials.record, ubt.engine.graph, ubt.artifacts.store, ubt.trials.assignment, ubt.attacks, ubt.models.settings",
    "ubt.common.hashing, ubt.common.statistics",
]


@pytest.mark.parametrize("modules", LIGHT)
def test_what_plans_and_reads_starts_without_torch_and_ray(modules):
    code = (
        f"import sys, {modules}; print(*sorted({{'torch', 'open_clip', 'ray', 'mlflow', 'optuna'}} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert loaded.split() == []


# Inside the packages

LAYERS = {
    "ubt": (
        "lazy",
        "common",
        "config",
        "data",
        "models",
        "attacks",
        "defenses",
        "trials",
        "artifacts",
        "methods",
        "engine",
        "stages",
        "testing",
    ),
    "sweeps": (
        "tracking",
        "search",
        "study",
        "planning",
        "scheduling",
        "workers",
        "backends",
        "run",
        "replaying",
        "cleaning",
        "detached",
        "watching",
        "cli",
    ),
    "analysis": (
        "formatting",
        "rendering",
        "records",
        "planned",
        "points",
        "findings",
        "tables",
        "summary",
        "comparison",
        "opening",
        "page",
        "details",
        "front",
        "gates",
        "nodes",
        "costs",
        "effects",
        "figures",
        "printed",
        "side_by_side",
        "cleaned",
        "paper",
        "optuna_journal",
        "report",
        "run",
    ),
}
"""From the ground up: what a sub-package imports lies in itself or in one before it. So no two import each other."""


def part(path: str) -> str:
    """Return the sub-package, or the module at the top of a package, that a file belongs to."""
    return Path(path).parts[1].removesuffix(".py")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_sub_package_imports_one_above_it(package):
    order = LAYERS[package]
    found = {
        (path, target)
        for path, tree in sources(package).items()
        for target in filter(None, map(as_file, imports(tree)))
        if part(path) in order and part(target) in order and target.startswith(package)
        if order.index(part(target)) > order.index(part(path))
    }
    assert not found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_sub_package_has_its_layer(package):
    assert {part(path) for path in sources(package)} - {"__init__"} == set(LAYERS[package])


def test_no_folder_holds_more_modules_than_one_takes_in():
    folders = Counter(str(Path(path).parent) for path in everything())
    assert {folder: count for folder, count in folders.items() if count > 16} == {}


def test_no_file_is_longer_than_300_lines():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in everything()}
    assert {path: length for path, length in lengths.items() if length > 300} == {}


def test_files_of_tests_have_names_of_their_own() -> None:
    """By which pytest knows them: of two alike, the second that one process meets would not be run."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_files_import_each_other_nor_in_a_circle(package):
    graph = {
        path: {file for file in map(as_file, imports(without_type_checking(tree))) if file and file != path}
        for path, tree in sources(package).items()
    }
    finished: set[str] = set()

    def visit(path: str, way: tuple[str, ...]) -> None:
        assert path not in way, f"a circle: {' → '.join((*way[way.index(path) :], path))}"
        if path in finished or path not in graph:
            return
        for target in sorted(graph[path]):
            visit(target, (*way, path))
        finished.add(path)

    for path in graph:
        visit(path, ())


# What nobody may do


def called(node: ast.Call) -> str:
    """Return the dotted name of a called function, as written."""
    return ast.unparse(node.func)


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path, tree in everything().items():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def keyword(node: ast.Call, name: str) -> str | None:
    return next((ast.unparse(given.value) for given in node.keywords if given.arg == name), None)


CATCHES_ALL = {
    "ubt/engine/runner.py": "the boundary of a trial: every failure ends up in a record",
    "ubt/engine/poisoning.py": "an error of the feeding thread is raised where the batch was asked for",
    "ubt/common/registry.py": "a plug-in may raise anything on import",
    "analysis/figures/base.py": "a figure never costs a report, least of all one of another distribution",
    "sweeps/backends/node_facts.py": "any error on a node is a fact about it",
    "sweeps/backends/imported.py": "what a worker cannot import is said by the trial that needs it",
    "sweeps/backends/connection.py": "Ray raises a bare `Exception` where its processes do not come up in time",
    "sweeps/run/launch.py": "MLflow is told that a sweep ended, however it did",
    "sweeps/run/finish.py": "a report never costs a sweep",
    "sweeps/search/optuna_storage.py": "Optuna carries out the operations of a damaged journal unchecked",
    "sweeps/scheduling/elsewhere.py": "a thread that ended would leave trials waiting: they go on and meet it",
    "sweeps/tracking/delivery.py": "what MLflow and its libraries raise never costs a sweep nor ends the thread",
    "sweeps/tracking/tracker.py": "what they raise when a connection is made is distinguished",
    "sweeps/tracking/database.py": "a migration over an unfinished database may raise anything",
    "sweeps/tracking/outcome.py": "MLflow shows the trials also where what they come to cannot be worked out",
    "sweeps/tracking/pages.py": "what MLflow raises when it is asked where a run is is distinguished",
    "ubt/artifacts/patience.py": "each cloud's client has errors of its own",
    "ubt/artifacts/uploads.py": "an error of the uploading thread is raised where the trial goes on",
    "ubt/data/addresses/clouds.py": "each cloud's client has errors of its own",
}
"""Where exceptions of every kind are caught, and why."""


def test_exceptions_of_every_kind_are_caught_only_where_there_is_a_reason():
    def is_broad(node: ast.AST) -> bool:
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)
        suppresses = isinstance(node, ast.Call) and called(node).endswith("suppress")
        return suppresses and any(ast.unparse(kind) in {"Exception", "BaseException"} for kind in node.args)

    broad = {path for path, tree in everything().items() for node in ast.walk(tree) if is_broad(node)}
    assert broad == set(CATCHES_ALL)


UNSAFE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "joblib.load"),
    *(
        "dill.load",
        "dill.loads",
        "marshal.load",
        "marshal.loads",
        "shelve.open",
        "pandas.read_pickle",
        "pd.read_pickle",
    ),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "eval", "exec", "os.system", "os.popen"),
}


def test_nothing_that_could_run_code_is_read():
    assert {(path, called(node)) for path, node in calls() if called(node) in UNSAFE} == set()


@pytest.mark.parametrize(
    ("function", "argument", "safe"),
    [
        ("torch.load", "weights_only", "True"),
        ("np.load", "allow_pickle", "False"),
    ],
)
def test_files_are_opened_without_unpickling(function, argument, safe):
    for path, node in calls():
        if called(node) == function:
            assert keyword(node, argument) == safe, f"{path}:{node.lineno}"


def test_no_command_is_handed_to_a_shell():
    assert not [(path, node.lineno) for path, node in calls() if keyword(node, "shell") not in {None, "False"}]


GLOBAL_DRAWS = {"np.random.seed", "np.random.rand", "np.random.randn", "np.random.choice", "np.random.shuffle"}


def test_no_global_generator_is_used():
    found = {(path, called(node)) for path, node in calls() if called(node) in GLOBAL_DRAWS | {"torch.manual_seed"}}
    assert found == {
        ("ubt/methods/augmentation.py", "torch.manual_seed"),
        ("ubt/models/build.py", "torch.manual_seed"),
    }, "there within `fork_rng`: torchvision and open_clip know no other"
    assert importers("random") == set()


def test_no_generator_is_made_without_a_seed():
    unseeded = [node for _, node in calls() if called(node).endswith("default_rng") and not node.args]
    assert not [ast.unparse(node) for node in unseeded]
