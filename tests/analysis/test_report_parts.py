"""The comparison and the figures for papers in the report."""

import base64
import re

import pandas as pd
import pytest

from analysis.paper import PAPER_FIGURES
from analysis.report import write_report

NASTY = "<b>bold</b>"


@pytest.fixture
def page(run_folder):
    return lambda *records: write_report(run_folder(*records)).page


def field(trial, **fields):
    return [
        trial(0, asr=0.5, changes={"defense": {"kind": "finetune"}}, **fields),
        trial(1, asr=0.1, ca=0.82),
        trial(2, asr=0.1, changes={"defense": {"kind": "par"}}, state="FAILED"),
    ]


def test_several_defenses_have_a_section_with_a_table_a_figure_and_a_file(page, trial):
    written = page(*field(trial))
    html = written.read_text(encoding="utf-8")
    section = re.search('<section id="comparison">.*?</section>', html, re.S)[0]
    assert '<a href="#comparison">' in html
    assert [re.sub("<.*?>", "", row).split()[0] for row in re.findall("<tr.*?</tr>", section, re.S)] == [
        *("defense", "no", "fine-tuning", "PAR", "UBT")
    ]
    assert 'class="best">11.0%' in section
    assert "UBT leaves ASR 11.0%" in section
    (image,) = re.findall('src="data:image/svg\\+xml;base64,([^"]+)"', section)
    assert b"<svg" in base64.b64decode(image)
    assert len(pd.read_csv(written.parent / "comparison.csv")) == 4 * 3


def test_one_defense_has_no_such_section(page, trial):
    written = page(trial(0))
    assert "comparison" not in written.read_text(encoding="utf-8").partition("<script>")[0]
    assert not (written.parent / "comparison.csv").exists()


def test_figures_that_cannot_be_drawn_say_why(page, trial):
    html = page(trial(0)).read_text(encoding="utf-8")
    section = re.search('<section id="paper">.*?</section>', html, re.S)[0]
    assert "<img" not in section
    assert section.count('class="absent"') == 4


def test_figures_that_lack_the_same_say_so_once(page, trial, monkeypatch):
    def fail(run):
        raise OSError("the store is gone")

    monkeypatch.setattr("analysis.paper.Artifacts.of", fail)
    section = re.search('<section id="paper">.*?</section>', page(trial(0)).read_text(encoding="utf-8"), re.S)[0]
    assert section.count('class="absent"') == section.count("the store is gone") == 1
    assert section.count(";") == len(PAPER_FIGURES) - 2, "all but the comparison, which is elsewhere"


def test_names_in_the_comparison_cannot_bring_markup(page, trial):
    html = page(*field(trial), trial(5, changes={"defense": {"kind": NASTY}, "victim.attack": {"kind": NASTY}}))
    assert NASTY not in html.read_text(encoding="utf-8").partition('<section id="study">')[0]
