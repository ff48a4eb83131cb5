"""Every figure of the report: drawn where there is something to draw, and with its reason where there is not."""

import json
import re
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from analysis import load_run, write_report
from analysis.figures import FIGURES, Absent, FigureKind
from analysis.findings import find
from analysis.records import read_run

SAMPLES, RATIO = "defense.unlearn_samples", "defense.suspicious_ratio"
EVERY_FIGURE = pytest.mark.parametrize("kind", tuple(FIGURES), ids=lambda kind: kind.name)


def test_names_are_unique_and_usable_as_anchors():
    names = [kind.name for kind in FIGURES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z-]+", name) for name in names)


@pytest.fixture(scope="module")
def whole(made_run, tmp_path_factory):
    """A search of two knobs, with a trial that failed and one that runs."""
    return find(read_run(made_run(tmp_path_factory.mktemp("whole") / "run", trials=52, running=1)))


@pytest.fixture(scope="module")
def ablation(made_run, tmp_path_factory):
    """An ablation of components, under three seeds."""
    return find(read_run(made_run(tmp_path_factory.mktemp("ablation") / "run", kind="ablation", seeds=3)))


@pytest.fixture
def shown(kind, whole, ablation):
    """The run that a figure is for."""
    return ablation if kind.name == "components" else whole


@EVERY_FIGURE
def test_a_run_with_trials_is_drawn(kind, shown):
    figure = kind.figure(shown)
    assert isinstance(figure, go.Figure)
    assert figure.data


@EVERY_FIGURE
def test_backgrounds_are_transparent_for_light_and_dark_pages(kind, shown):
    layout = kind.figure(shown).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"


@EVERY_FIGURE
def test_without_a_done_trial_a_figure_says_why_it_is_absent(kind, run_of, trial):
    figure = kind.figure(find(run_of(trial(0, state="FAILED"), trial(1, state="RUNNING"))))
    assert isinstance(figure, Absent)
    assert figure.why.endswith(".")


@EVERY_FIGURE
def test_values_of_trials_cannot_bring_markup(kind, run_of, trial):
    nasty = trial(1, changes={SAMPLES: "<b>8", RATIO: 0.5})  # in a name it is refused where the record is read
    figure = kind.figure(find(run_of(trial(0), nasty)))
    texts = figure.why if isinstance(figure, Absent) else json.dumps(figure.to_plotly_json(), default=str)
    assert "<b>8" not in texts


@EVERY_FIGURE
def test_a_single_trial_is_drawn_or_explained(kind, run_of, trial):
    figure = kind.figure(find(run_of(trial(0))))
    assert figure.why if isinstance(figure, Absent) else figure.data


@pytest.fixture
def plugged(monkeypatch):
    """The builder of a figure of another distribution, found by its entry point."""

    def plug(**fields):
        kind = FigureKind(**{"name": "seeds", "title": "Seeds", "caption": "How many.", **fields})
        point = SimpleNamespace(name="seeds", value="my_package:SEEDS", dist=None, load=lambda: kind)
        monkeypatch.setattr(FIGURES, "_items", dict(FIGURES._items))
        monkeypatch.setattr(FIGURES, "_points", lambda: {"seeds": (point,)})

    return plug


def test_a_figure_of_another_distribution_is_in_the_report_and_in_a_run(plugged, run_folder, trial):
    plugged(
        info=lambda findings: [len(one.measured) for one in findings.measured],
        draw=lambda counts: go.Figure(go.Bar(y=counts)),
    )
    folder = run_folder(trial(0), trial(1, seed=1))
    assert list(load_run(folder).figure("seeds").data[0].y) == [2]
    assert '<section id="seeds" class="figure">' in write_report(folder).page.read_text(encoding="utf-8")


def test_one_that_raises_is_absent_from_the_report_with_its_error(plugged, run_folder, trial):
    plugged(info=lambda findings: findings.nothing, draw=go.Figure)
    html = write_report(run_folder(trial(0))).page.read_text(encoding="utf-8")
    section = html[html.index('<section id="missing"') :]
    assert "It could not be drawn: AttributeError" in section[: section.index("</section>")]


def test_one_that_cannot_be_imported_is_absent_too(monkeypatch, run_folder, trial):
    def load():
        raise ImportError("no module named `lost`")

    point = SimpleNamespace(name="lost", value="lost:FIGURE", dist=None, load=load)
    monkeypatch.setattr(FIGURES, "_points", lambda: {"lost": (point,)})
    html = write_report(run_folder(trial(0))).page.read_text(encoding="utf-8")
    assert "cannot be imported from lost:FIGURE: ImportError" in html
