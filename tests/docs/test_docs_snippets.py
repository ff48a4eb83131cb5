"""Every YAML snippet in README and docs is a valid study, and every page's commands and Python run in order.

Commands run in this process, sweeps without Ray and MLflow (`--address inline`, `tracking.enabled=false`), and all in
one store, so that the toy victim is trained once.
"""

import json
import re

import pytest
import yaml
from doc_blocks import PAGES, ROOT, all_blocks, blocks, name, ubt
from PIL import Image

STUDIES = all_blocks("yaml")
RUNNING = [
    page for page in PAGES if any(b.language in ("bash", "python") and not b.reason_not_run for b in blocks(page))
]


@pytest.mark.parametrize("block", STUDIES, ids=lambda block: block.where)
def test_a_study_is_valid(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load(block.text)
    if not {"name", "extends"} & tree.keys():
        tree["extends"] = "smoke"  # a part of a study, shown by itself
    for word in re.split(r"[\s{},\"']+", block.text):
        if word.endswith((".safetensors", ".pt")):
            (tmp_path / word).touch()
        if word.endswith(".png"):
            Image.new("RGB", (4, 4)).save(tmp_path / word)
        if word.endswith(".json"):
            (tmp_path / word).write_text("[0]")
        if word.startswith("local-dir:"):
            folder = tmp_path / word.removeprefix("local-dir:")
            folder.mkdir(parents=True)
            (folder / "open_clip_model.safetensors").touch()
            described = {"model_cfg": {"embed_dim": 8, "vision_cfg": {"image_size": 32}, "text_cfg": {}}}
            (folder / "open_clip_config.json").write_text(json.dumps(described))
    (tmp_path / "snippet.yaml").write_text(yaml.safe_dump(tree))
    status = ubt(monkeypatch, "plan", "snippet.yaml", "--set", f"store={tmp_path / 'store'}")
    assert status == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", RUNNING, ids=name)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "yaml" and block.title:
            (tmp_path / block.title).write_text(block.text)
        if block.reason_not_run:
            continue
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), names)
        elif block.language == "bash":
            for words in block.commands:
                assert words[0] == "ubt", f"{block.where}: mark what cannot run here with <!-- not run: reason -->"
                status = ubt(monkeypatch, *words[1:], *_cheaply(words[1]))
                assert status == 0, f"{block.where}: {capsys.readouterr().err}"


def _cheaply(command):
    inline = ["--address", "inline"] if command == "sweep" else []
    return [*inline, "--set", "tracking.enabled=false"] if command in ("sweep", "run") else []


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert ubt(monkeypatch, "sweep", "smoke", *_cheaply("sweep")) == 0, capsys.readouterr().err
    notebook = json.loads((ROOT / "docs" / "howto" / "reading-a-run.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)


def test_the_grid_in_the_readme_has_the_trials_that_the_text_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sig-ratio.yaml").write_text(blocks(PAGES[0])[2].text)
    assert ubt(monkeypatch, "plan", "sig-ratio.yaml") == 0
    assert "27 trials" in capsys.readouterr().out


def test_every_block_says_what_it_is():
    odd = [
        b.where for page in PAGES for b in blocks(page) if b.language not in ("bash", "yaml", "python", "toml", "text")
    ]
    log = [block.where for block in blocks(PAGES[0]) if block.text.partition("] ")[2].startswith("0/24")]
    assert odd == log


def test_every_comment_that_a_block_is_not_run_belongs_to_a_block():
    for page in PAGES:
        marked = page.read_text(encoding="utf-8").count("<!-- not run:")
        assert marked == sum(bool(block.reason_not_run) for block in blocks(page)), name(page)
