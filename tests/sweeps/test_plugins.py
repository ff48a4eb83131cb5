"""Designs and attacks from outside the package, named by a study's `plugins`: there before anything is checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from sweeps.planning.trials import TrialPlanner
from sweeps.run.resume import check_same_study
from sweeps.search import DESIGNS
from sweeps.search.base import Study
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study, study_schema
from ubt.attacks import ATTACKS
from ubt.common.errors import UserError
from ubt.common.registry import Registry

RATIO = "defense.suspicious_ratio"
PLUGIN = '''
from pathlib import Path
from typing import ClassVar, Literal

from sweeps.search import DESIGNS, Changes, Search
from ubt.attacks import ATTACKS, Attack, Images, Rows


class Ends(Search):
    """The base, and both ends of each range alone."""

    design: Literal["ends"] = "ends"

    def layout(self) -> list[Changes]:
        return [{}, *({path: end} for path, range in self.space.items() for end in (range.low, range.high))]


class Stencil(Attack):
    """Paints a stencil."""

    path_fields: ClassVar[tuple[str, ...]] = ("file",)

    kind: Literal["stencil"] = "stencil"
    file: Path
    """The stencil."""

    def stamp(self, images: Images, rows: Rows) -> Images:
        return images


DESIGNS.register(Ends)
ATTACKS.register(Stencil)
'''
STUDY = {
    "plugins": ["./my_plugin.py"],
    "victim": {"attack": {"kind": "stencil", "file": "s.png"}},
    "search": {"design": "ends", "space": {RATIO: {"low": 0.02, "high": 0.03}}},
}

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write the plug-in and studies beside it; afterwards it is as if it had never been imported."""
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    (tmp_path / "s.png").touch()
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    registries: list[Registry[object]] = [DESIGNS, ATTACKS]
    for registry in registries:
        monkeypatch.setattr(registry, "_items", dict(registry._items))
        monkeypatch.setattr(registry, "_modules", dict(registry._modules))

    def write(file: str = "mine.yaml", /, **tree: object) -> str:
        (tmp_path / file).write_text(yaml.safe_dump({**STUDY, **tree}))
        return str(tmp_path / file)

    yield write
    for name in set(sys.modules) - before:
        if name.endswith("plugin"):
            del sys.modules[name]


def test_a_file_beside_the_study_brings_its_kinds(write: Write, tmp_path: Path) -> None:
    study = load_study(write())
    assert study.plugins == (str(tmp_path / "my_plugin.py"),)
    assert study.layout() == [{}, {RATIO: 0.02}, {RATIO: 0.03}]
    assert study.victim.attack.kind == "stencil"
    assert study.victim.attack.file == tmp_path / "s.png", "its path fields start at the study's folder"


def test_a_design_from_outside_does_what_the_package_s_own_do(write: Write) -> None:
    space = {RATIO: {"low": 0.02, "high": 0.03}}
    inner = {"design": "ends", "space": space}
    both = load_study(write(search={"design": "concat", "designs": [inner, {"design": "list", "trials": [{}]}]}))
    assert both.layout() == [{}, {RATIO: 0.02}, {RATIO: 0.03}]
    ubt = {"ubt": {"defense": {"kind": "ubt"}, "search": inner}}
    compared = load_study(write(search={"design": "comparison", "attacks": {"sig": {"kind": "sig"}}, "defenses": ubt}))
    assert len(compared.proposals()) == 3 + 1
    proposer = both.search.proposer(both, Path("nowhere"))
    assert len(list(iter(proposer.propose, None))) == both.trials == 3
    with pytest.raises(UserError, match="change the design in the study"):
        both.search.with_more_trials(1, {})
    assert "Ends" in study_schema()["$defs"]


def test_every_assignment_names_the_plugins(write: Write) -> None:
    study = load_study(write())
    planner = TrialPlanner(study, "/store", content_key=lambda data: "the data")
    assert planner(study.proposals()[0], 0).assignment.plugins == study.plugins


def test_set_names_plugins_and_importable_modules_stay_as_they_are(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    study = load_study(write(plugins=[]), ["plugins=[my_plugin]"])
    assert study.plugins == ("my_plugin",)


def test_of_what_is_extended_the_list_is_replaced(write: Write, tmp_path: Path) -> None:
    (tmp_path / "other_plugin.py").write_text(PLUGIN.replace('"ends"', '"other"').replace('"stencil"', '"other"'))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"extends": write("base.yaml")}))
    assert load_study(str(tmp_path / "own.yaml")).plugins == (str(tmp_path / "my_plugin.py"),)
    search, victim = {**STUDY["search"], "design": "other"}, {"attack": {"kind": "other", "file": "s.png"}}
    own = {"extends": "base.yaml", "plugins": ["other_plugin.py"], "search": search, "victim": victim}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    assert load_study(str(tmp_path / "own.yaml")).plugins == (str(tmp_path / "other_plugin.py"),)


@pytest.mark.parametrize(
    ("plugin", "code", "cause"),
    [
        ("no_such_plugin", "", "ModuleNotFoundError: No module named 'no_such_plugin'"),
        ("./no_such_plugin.py", "", "FileNotFoundError"),
        ("./broken_plugin.py", "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_one_that_cannot_be_imported_is_one_message_with_its_cause(
    write: Write, tmp_path: Path, plugin: str, code: str, cause: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text(code)
    with pytest.raises(UserError) as caught:
        load_study(write(plugins=[plugin]))
    (problem,) = caught.value.problems
    assert problem.where == "plugins"
    assert cause in problem.message


@pytest.mark.parametrize("plugins", ["my_plugin", [3], {"a": 1}])
def test_what_is_no_list_of_names_is_a_mistake_of_that_field(write: Write, plugins: object) -> None:
    with pytest.raises(UserError) as caught:
        load_study(write(plugins=plugins, victim={}, search={}))
    assert any(": plugins" in problem.where for problem in caught.value.problems)


def test_an_unknown_design_names_the_nearest_and_what_is_installed(write: Write) -> None:
    with pytest.raises(UserError) as caught:
        load_study(write(search={"design": "ens"}))
    told = str(caught.value)
    assert "search.design: unknown design; allowed: optuna, grid, ofat" in told
    assert "did you mean `ends`?" in told


@pytest.mark.parametrize("design", ["optuna", "concat", "comparison"])
def test_what_does_not_know_its_configurations_is_no_part_of_another(write: Write, design: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study(write(search={"design": "concat", "designs": [{"design": design}]}))
    assert "search.designs.0.design: cannot stand within another search" in str(caught.value)
    assert "allowed: grid, ofat" in str(caught.value)


def test_a_run_goes_on_though_its_plugins_lie_elsewhere(write: Write, tmp_path: Path) -> None:
    from sweeps.run.folder import new_run

    study = load_study(write())
    run = new_run(tmp_path, "mine")
    run.write_study(study)
    moved = study.with_parts(plugins=("/elsewhere/my_plugin.py",))
    assert check_same_study(run, moved) == moved


def test_a_study_answers_its_search() -> None:
    study: Study = StudyConfig(name="x")
    assert study.proposals()
