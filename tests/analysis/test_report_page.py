import base64
import gzip
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from analysis.report import write_report
from ubt.common.errors import UserError
from ubt.trials.record import DamagedRecord

SAMPLES = "defense.unlearn_samples"
NASTY = "<script>alert('x')</script>\"' & </td>"


class Page(HTMLParser):
    """What a browser would see of a page: its elements, the texts of its scripts, and its visible text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.scripts, self.words = [], [], [], []
        self.feed(html)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture
def written(run_folder):
    def write(*records, study=None):
        return write_report(run_folder(*records, study=study))

    return write


@pytest.fixture
def page(written):
    return lambda *records, study=None: Page(written(*records, study=study).page.read_text(encoding="utf-8"))


def sweep(trial):
    return [
        trial(0, asr=0.3, ca=0.82),
        trial(1, asr=0.1, ca=0.81, changes={SAMPLES: 8}),
        trial(2, asr=0.0, ca=0.5, changes={SAMPLES: 512}),
        trial(3, state="FAILED", reason="the loss is not finite", fault="NotFinite", changes={SAMPLES: 16}),
        trial(4, state="PRUNED", reason="worse than the median", changes={SAMPLES: 32}),
    ]


def test_page_tables_and_summary_are_written_into_the_run(written, trial):
    report = written(*sweep(trial))
    names = ["index.html", "trials.csv", "front.csv", "epochs.csv", "summary.json", "effects.csv", "effects.tex"]
    names += [f"figure-{name}.csv" for name in ("front", "knobs", "growth", "epochs", "stages")]
    assert [path.name for path in report.files] == names
    assert {path.parent.name for path in report.files} == {"report"}
    folder = report.page.parent
    assert len(pd.read_csv(folder / "trials.csv")) == 5
    assert list(pd.read_csv(folder / "front.csv")["trial"]) == ["trial-2", "trial-1", "trial-0"]
    assert json.loads((folder / "summary.json").read_text()) == json.loads(report.summary.model_dump_json())
    assert report.summary.chosen.trial == "trial-1"


def test_the_page_opens_with_the_result_on_the_test_split(page, trial):
    text = page(*sweep(trial)).text
    assert (
        "Attack success falls from 89.0% to 11.0%, clean accuracy does not clearly change (83.0%, then 82.0%)" in text
    )
    assert "5 trials: 3 done, 1 pruned and 1 failed (1 by the method)." in text
    assert "saved 30 s" in text


def test_failures_stand_with_their_reasons(page, trial):
    text = page(*sweep(trial)).text
    assert "trial-3 failed by the method the loss is not finite" in text
    assert "trial-4 pruned worse than the median" in text


def test_the_page_asks_nothing_of_the_network(written, trial):
    html = written(*sweep(trial)).page.read_text(encoding="utf-8")
    assert not re.search("https?://", html)  # the library's own addresses are packed away, and asked by nothing
    parsed = Page(html)
    (library,) = [
        script
        for attrs, script in zip(parsed.all("script"), parsed.scripts, strict=True)
        if attrs.get("data-library") == "plotly"
    ]
    assert gzip.decompress(base64.b64decode(library)).decode() == get_plotlyjs()
    assert not any("src" in attrs for attrs in parsed.all("script"))
    assert not parsed.all("link")
    assert not parsed.all("img")
    assert "default-src 'none'" in str(parsed.all("meta"))


def test_plotly_offers_no_upload_of_the_results(page, trial):
    ours = page(trial(0)).scripts[-1]
    assert "showSendToCloud: false" in ours
    assert 'plotlyServerURL: ""' in ours


def test_names_reasons_and_settings_cannot_bring_markup(page, trial):
    clean = page(*sweep(trial))
    study = {"name": NASTY, "search": {"space": {SAMPLES: [NASTY]}}}
    records = sweep(trial)
    records[1] = trial(1, asr=0.1, ca=0.81, changes={SAMPLES: NASTY}, commit=NASTY, device=NASTY)
    records[3] = trial(3, state="FAILED", reason=NASTY, changes={SAMPLES: 16})
    dirty = page(*records, study=study)
    assert len(dirty.scripts) == len(clean.scripts)
    assert not any("alert('x')" in script and "<script" in script for script in dirty.scripts if len(script) < 1e6)
    assert dirty.text.count("<script>alert('x')</script>") >= 5


def test_a_record_whose_trial_has_markup_for_a_name_is_refused(trial, run_folder):
    folder = run_folder(trial(0))
    record = folder / "records" / "trial-0.json"
    record.write_text(record.read_text().replace('"trial": "trial-0"', f'"trial": {json.dumps(NASTY)}'))
    with pytest.raises(DamagedRecord, match=r"trial-0\.json"):
        write_report(folder)


def test_every_figure_of_the_page_is_json_a_browser_can_read(page, trial):
    parsed = page(*sweep(trial))
    blocks = [
        json.loads(script)
        for attrs, script in zip(parsed.all("script"), parsed.scripts, strict=True)
        if attrs.get("type") == "application/json" and "id" not in attrs
    ]
    assert len(blocks) == 5
    assert all(block["data"] and block["layout"] for block in blocks)


def test_every_row_has_a_cell_for_every_heading(page, trial):
    parsed = page(*sweep(trial))
    headings = len(parsed.all("th"))
    front, trials, effects = 3, 5, 4
    assert headings == 8 + 11 + 5
    assert len(parsed.all("td")) == front * 8 + trials * 11 + effects * 5


def test_headings_are_buttons_and_cells_carry_what_they_sort_by(page, trial):
    parsed = page(*sweep(trial))
    assert len(parsed.all("button")) == len(parsed.all("th"))
    orders = [cell["data-order"] for cell in parsed.all("td")]
    assert "0.11" in orders
    assert "" in orders


def test_a_run_without_a_done_trial_is_reported_plainly(page, trial):
    text = page(trial(0, state="FAILED", reason="no memory"), trial(1, state="RUNNING")).text
    assert "No trial is done yet" in text
    assert "No trial of this run has been measured yet (1 failed and 1 running)." in text
    assert "no memory" in text


def test_a_run_of_one_trial_is_reported(page, trial):
    text = page(trial(0)).text
    assert "1 trial, done." in text
    assert "one configuration that no other betters" in text


def test_a_run_without_a_choice_says_so(page, trial):
    assert "No trial keeps clean accuracy" in page(trial(0, ca=0.5)).text


def test_several_seeds_are_one_row_of_the_front_and_each_a_row_of_the_trials(written, trial):
    report = written(*[trial(i, seed=i, asr=0.1 * (i + 1), ca=0.82) for i in range(3)])
    assert list(pd.read_csv(report.page.parent / "front.csv")["seeds_done"]) == [3]
    text = Page(report.page.read_text(encoding="utf-8")).text
    assert "3/3" in text
    assert "mean of 3 seeds" in report.page.read_text(encoding="utf-8")


def test_many_changed_settings_share_one_column(page, trial):
    many = {f"defense.extra{i}": i for i in range(9)}
    parsed = page(trial(0), trial(1, changes=many), study={"name": "toy"})
    assert parsed.text.count("changes to the base") == 2


def test_writing_twice_replaces_the_report(written, trial):
    written(trial(0))
    first = written(trial(0))
    assert sorted(path.name for path in first.page.parent.iterdir()) == sorted(path.name for path in first.files)


def test_the_same_run_gives_the_same_page(written, trial):
    assert written(*sweep(trial)).page.read_bytes() == written(*sweep(trial)).page.read_bytes()


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path):
    with pytest.raises(UserError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
