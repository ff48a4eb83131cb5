"""Examples of poisoned pairs: what the stages poisoned is what is shown, and nothing is decoded for it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis.figures.base import Absent
from analysis.findings import find
from analysis.paper.artifacts import Artifacts
from analysis.paper.examples import LINES, draw_examples, examples_info, shortened
from analysis.paper.style import paper_style
from analysis.records import read_run
from ubt.artifacts.store import local_cache
from ubt.trials.record import write_record


@pytest.fixture
def findings(tiny_run, tmp_path):
    """Those of the tiny trial, with the store of its real stages."""
    write_record(tmp_path / "run" / "records", tiny_run.record)
    (tmp_path / "run" / "study.json").write_text(json.dumps({"name": "tiny", "store": str(tiny_run.root)}))
    return find(read_run(tmp_path / "run"))


def worked_out(findings):
    return examples_info(findings, Artifacts.of(findings.run))


def test_pairs_are_shown_as_they_were_and_as_they_are_trained_on(findings, tiny_run):
    info = worked_out(findings)
    (panel,) = info.panels
    target = tiny_run.record.config["victim"]["attack"]["target"]
    assert 0 < len(panel.captions) == len(panel.before) == len(panel.after)
    assert all(target in after and target not in before for before, after in panel.captions)
    changed = (panel.before != panel.after).any(axis=(1, 2, 3))
    assert changed.all()
    assert (panel.before == panel.after).mean() > 0.5, "the trigger is a part of the image"
    with paper_style():
        figure = draw_examples(info)
    assert sum(len(axes.images) for axes in figure.axes) == 2 * len(panel.captions)


def test_nothing_is_decoded_for_a_picture(findings, tiny_run, tmp_path):
    store = tmp_path / "elsewhere"
    shutil.copytree(tiny_run.root, store, ignore=shutil.ignore_patterns("images"))
    absent = worked_out(replace(findings, run=replace(findings.run, store=str(store))))
    assert isinstance(absent, Absent)
    assert absent.why == "The decoded images of its data are not on this machine."
    assert not local_cache(str(store)).exists()


def test_a_caption_takes_a_few_lines():
    assert shortened("a cat").splitlines() == ["a cat"]
    long = shortened(" ".join(f"word{n}" for n in range(60))).splitlines()
    assert len(long) == LINES
    assert long[-1].endswith("…")
    assert np.all([len(line) < 40 for line in long])
