import json
import re

import plotly.graph_objects as go
import pytest

from analysis.figures import FIGURES, Absent
from analysis.findings import find

SAMPLES, RATIO = "defense.unlearn_samples", "defense.suspicious_ratio"
EVERY_FIGURE = pytest.mark.parametrize("kind", tuple(FIGURES), ids=lambda kind: kind.name)


def test_names_are_unique_and_usable_as_anchors():
    names = [kind.name for kind in FIGURES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z-]+", name) for name in names)


@EVERY_FIGURE
def test_a_run_with_trials_is_drawn(kind, run_of, trial):
    records = [trial(i, asr=0.1 * i, changes={SAMPLES: 8 * i}) for i in range(1, 4)]
    figure = kind.figure(find(run_of(trial(0), *records, trial(9, state="FAILED"))))
    assert isinstance(figure, go.Figure)
    assert figure.data


@EVERY_FIGURE
def test_backgrounds_are_transparent_for_light_and_dark_pages(kind, run_of, trial):
    layout = kind.figure(find(run_of(trial(0), trial(1, changes={SAMPLES: 8})))).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"


@EVERY_FIGURE
def test_without_a_done_trial_a_figure_says_why_it_is_absent(kind, run_of, trial):
    figure = kind.figure(find(run_of(trial(0, state="FAILED"), trial(1, state="RUNNING"))))
    assert isinstance(figure, Absent)
    assert figure.why.endswith(".")


@EVERY_FIGURE
def test_names_of_trials_cannot_bring_markup(kind, run_of, trial):
    nasty = trial(1, trial="<a href='x'>", changes={SAMPLES: "<b>8", RATIO: 0.5})
    figure = kind.figure(find(run_of(trial(0), nasty)))
    texts = json.dumps(figure.to_plotly_json(), default=str)
    assert "<a href" not in texts
    assert "<b>8" not in texts


@EVERY_FIGURE
def test_a_single_trial_is_drawn_or_explained(kind, run_of, trial):
    figure = kind.figure(find(run_of(trial(0))))
    assert figure.why if isinstance(figure, Absent) else figure.data
