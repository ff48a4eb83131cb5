"""The notebook of the docs, executed as a reader would on a small run."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "howto" / "reading-a-run.ipynb"


@pytest.fixture
def executed(tmp_path, trial, run_folder, monkeypatch):
    """The notebook with its outputs, beside the run that it reads."""
    records = [
        trial(
            number, seed=number % 2, asr=0.1 * (number // 2), ca=0.82, changes={"defense.overfit_epochs": number // 2}
        )
        for number in range(2, 8)
    ]
    folder = run_folder(trial(0), *records)
    (tmp_path / "runs").mkdir()
    folder.rename(tmp_path / "runs" / "smoke")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    return {cell["id"]: cell for cell in notebook.cells}


def test_the_notebook_runs_and_its_figures_show_themselves(executed):
    def shown(name):
        return {kind for output in executed[name]["outputs"] for kind in output.get("data", {})}

    assert "text/html" in shown("trials")
    assert "<Run toy: 7 trials, 7 done>" in str(executed["load"]["outputs"])
    assert "application/vnd.plotly.v1+json" in shown("front-figure")
    assert "application/vnd.plotly.v1+json" in shown("epochs-figure")


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
