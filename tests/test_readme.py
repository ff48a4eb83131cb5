"""The README is true: its tree, its links, its commands and its studies."""

import importlib.util
import re
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tree_is_what_make_tree_would_write():
    tree = load(ROOT / "docs" / "readme_tree.py")
    assert tree.with_tree(README) == README, "run `make tree`"


def test_every_source_file_has_its_line_in_the_tree():
    names = {path.name for package in ("ubt", "sweeps", "analysis") for path in (ROOT / package).rglob("*.py")}
    missing = [name for name in names - {"__init__.py"} if f" {name} " not in README]
    assert not missing


def test_every_relative_link_leads_to_a_file():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_named_exists():
    from sweeps.cli.app import app

    known = set(typer.main.get_command(app).commands)
    named = set(re.findall(r"`?ubt ([a-z]+)", README)) - {"sweeps"}
    assert named <= known
    assert {"sweep", "plan", "run", "report", "ui", "doctor", "schema"} <= named


def test_every_make_target_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE)) | set(re.findall(r"`make (\w+)`", README))
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []


def test_the_studies_in_the_readme_are_valid(tmp_path):
    from sweeps.study.loading import load_study

    (tmp_path / "mine.safetensors").touch()
    studies = []
    for text in re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL):
        (tmp_path / "mine.yaml").write_text(text)
        studies.append(load_study(str(tmp_path / "mine.yaml")))
    grid, without_par = studies
    assert len(grid.search.layout()) * len(grid.seeds) == 27
    assert "par" not in without_par.search.defenses


def test_every_built_in_study_is_named():
    from sweeps.study.loading import builtin_studies

    assert [name for name in builtin_studies() if f"`{name}`" not in README] == []


def test_the_lock_file_names_no_address():
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")
