"""The figures for papers as files."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.figures.base import Absent
from analysis.paper import PAPER_FIGURES, embedded_figures, write_figures
from analysis.paper.captions import MARK_POINTS, Caption, CaptionPanel, CaptionsInfo, lay_out, text_points
from analysis.paper.density import Separation
from analysis.paper.separation import AttackPair, AttackPanels, OverfitDataInfo, SimilarityInfo, draw_similarity
from analysis.paper.style import COLUMN_INCHES, PAGE_INCHES, bands, paper_style, rendered
from ubt.common.errors import UserError


@pytest.fixture
def whole(toy):
    """A run that every figure can be drawn from."""
    toy.add_ubt()
    toy.add_ubt("all")
    toy.add_abl()
    return toy


def test_every_figure_is_written_as_png_and_pdf(whole):
    written = write_figures(whole.write())
    assert [figure.name for figure in written] == [kind.name for kind in PAPER_FIGURES]
    for figure in (one for one in written if one.name != "examples"):  # photographs, of a run with data
        assert [file.suffix for file in figure.files] == [".png", ".pdf"]
        assert {file.parent for file in figure.files} == {whole.folder / "figures"}
        png, pdf = figure.files
        with Image.open(png) as image:
            assert image.width in range(round(COLUMN_INCHES * 300) - 2, round(PAGE_INCHES * 300) + 2)
            assert np.asarray(image.convert("L")).std() > 10, "there is something on it"
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF")
        assert b"/FontFile2" in content, "fonts are embedded, as TrueType"
        assert b"/Type3" not in content
        assert b"/Subtype /Image" not in content, "nothing on it is made of dots"


def test_the_same_run_gives_the_same_bytes_wherever_they_are_asked_for(toy, tmp_path):
    toy.add_ubt()
    first, second = (write_figures(toy.write(), tmp_path / name) for name in ("a", "b"))
    assert any(figure.files for figure in first)
    assert not (toy.folder / "figures").exists()
    for one, other in zip(first, second, strict=True):
        assert [file.parent.name for file in one.files + other.files] == ["a"] * len(one.files) + ["b"] * len(one.files)
        assert [file.read_bytes() for file in one.files] == [file.read_bytes() for file in other.files]
    assert embedded_figures(toy.findings()) == embedded_figures(toy.findings())


def test_a_figure_without_its_trials_is_left_out_with_one_line(toy):
    toy.add("unlearn")
    for figure in write_figures(toy.write()):
        assert figure.files == ()
        assert len(figure.notes) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError):
        write_figures(tmp_path)


def test_drawing_leaves_the_settings_of_others_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with paper_style():
        assert mpl.rcParams["pdf.fonttype"] == 42
    assert dict(mpl.rcParams) == before


def separation(poisoned, clean):
    values = np.linspace(-0.4, 0.9, poisoned + clean)
    return Separation(values, np.arange(poisoned + clean) >= clean)


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 7])
def test_any_number_of_attacks_fits_the_page(columns):
    panels = tuple(
        AttackPanels(f"attack {i}", separation(3, 9), None if i else separation(9, 9)) for i in range(columns)
    )
    with paper_style():
        figure = draw_similarity(SimilarityInfo(panels, ()))
        rendered(figure, "svg")
    assert figure.get_figwidth() in {COLUMN_INCHES, PAGE_INCHES}
    assert sum(axes.get_title() != "" for axes in figure.axes) == columns


@pytest.mark.parametrize(("poisoned", "clean"), [(1, 1), (1, 500), (200, 1), (5, 0)])
def test_groups_of_any_size_are_drawn(poisoned, clean):
    pair = separation(poisoned, clean)
    for kind, info in (
        ("figure3", SimilarityInfo((AttackPanels("a", pair, pair),), ())),
        ("figure4", OverfitDataInfo((AttackPair("a", pair, pair),), ())),
    ):
        draw = next(figure.draw for figure in PAPER_FIGURES if figure.name == kind)
        with paper_style():
            assert len(rendered(draw(info), "png")["png"]) > 1000


def test_captions_may_hold_anything(tmp_path):
    odd = (("$5", 0.5), ("^_^", 0.2), ("<script>", 0.1), ("ça…", 0.1), ("", 0.1), ("x" * 60, 0.0))
    info = CaptionsInfo((CaptionPanel("$a_b$", (Caption(odd, True),), 0.1),), ())
    draw = next(figure.draw for figure in PAPER_FIGURES if figure.name == "figure5")
    with paper_style():
        assert rendered(draw(info), "pdf")["pdf"].startswith(b"%PDF")


def test_long_captions_are_broken_into_lines():
    with paper_style():
        boxes, height = lay_out(Caption((("word", 0.1),) * 30, True), 200)
        assert max(box.right for box in boxes) <= 200
        assert min(box.left for box in boxes) == MARK_POINTS
        assert height > lay_out(Caption((("word", 0.1),), True), 200)[1]
        assert text_points("wide words") > text_points("wide")


def test_bands_are_filled_evenly():
    assert [bands(count) for count in (1, 4, 5, 8, 9)] == [(1, 1), (1, 4), (2, 3), (2, 4), (3, 3)]


def test_absence_and_notes_reach_the_report(toy):
    toy.add_ubt()
    found = {figure.name: figure for figure in embedded_figures(toy.findings())}
    assert found["figure3"].source.startswith("data:image/svg+xml;base64,")
    assert found["figure3"].notes
    assert found["figure4"].source == ""
    assert found["figure4"].notes == (
        Absent("It needs two finished trials of UBT on one victim: `defense.overfit_data` suspicious, and all.").why,
    )


def test_drawing_needs_no_torch_and_reading_no_matplotlib(toy):
    toy.add_ubt()
    folder = toy.write()
    code = (
        "import sys, analysis.paper; assert 'matplotlib' not in sys.modules\n"
        f"analysis.paper.write_figures({str(folder)!r})\n"
        "print(*sorted({'torch', 'open_clip', 'ray', 'mlflow', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == []


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_figures_need_no_backend_and_leave_it_to_others(toy, backend):
    """A notebook's kernel sets $MPLBACKEND, which every process that is started in it inherits."""
    toy.add_ubt()
    toy.write()
    program = (
        "import os, sys; from analysis import write_figures; "
        f"files = [f for w in write_figures({str(toy.folder)!r}) for f in w.files]; assert files; "
        f"assert os.environ['MPLBACKEND'] == {backend!r}; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


def test_a_figure_that_cannot_be_drawn_is_left_out_with_its_reason(whole, monkeypatch):
    def fail(info):
        raise ZeroDivisionError("no width")

    spoilt = tuple(replace(kind, draw=fail) if kind.name == "figure3" else kind for kind in PAPER_FIGURES)
    monkeypatch.setattr("analysis.paper.PAPER_FIGURES", spoilt)
    written = {figure.name: figure for figure in write_figures(whole.write())}
    assert written["figure3"].files == ()
    assert "ZeroDivisionError: no width" in written["figure3"].notes[0]
    assert written["figure5"].files
