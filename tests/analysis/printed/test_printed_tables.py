import re

import plotly.graph_objects as go
import pytest

from analysis.findings import find
from analysis.printed.figures import figure_table
from analysis.printed.output import as_latex, as_markdown, made_with
from analysis.printed.tables import printed_table
from ubt.common.errors import UserError

SAMPLES = "defense.unlearn_samples"


@pytest.fixture
def searched(run_of, trial):
    changes = ({}, {SAMPLES: 8}, {SAMPLES: 16})
    rates = ((0.5, 0.82), (0.1, 0.81), (0.05, 0.4))
    made = zip(rates, changes, strict=True)
    return find(run_of(*(trial(n, asr=asr, ca=ca, changes=c) for n, ((asr, ca), c) in enumerate(made))))


def test_a_search_has_its_front_with_the_choice_set_off(searched):
    table = printed_table(searched)
    assert table.kind == "front"
    assert [row[0] for row in table.rows] == ["trial-2", "trial-1", "trial-0"]
    assert [row[2].best for row in table.rows] == [False, True, False]
    assert "in percent on the test split, with 95% intervals" in table.notes[0]
    assert table.csv.startswith("trial,")


def test_latex_has_numbers_for_siunitx_with_intervals_beside_them(searched):
    latex = as_latex(printed_table(searched), ["ubt table runs/toy --format latex"])
    lines = latex.splitlines()
    assert lines[0] == "% ubt table runs/toy --format latex"
    assert sum(line.startswith("S[", line.index("S[")) for line in lines if "S[" in line) == 1
    (tabular,) = (line for line in lines if line.startswith(r"\begin{tabular}"))
    assert tabular.count("S[table-format=2.1]") == 4
    cells = 2 + 2 * 4
    rows = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count("&") for line in rows} == {cells - 1}
    assert any(r"unlearn\_samples~=~8 & \bfseries 11.0 & {\scriptsize [9." in line for line in rows)


def test_a_number_that_was_not_measured_takes_both_of_its_columns(run_of, trial):
    findings = find(run_of(trial(0), trial(1, asr=0.05, ca=0.4, changes={SAMPLES: 8}, test=None)))
    latex = as_latex(printed_table(findings), [])
    rows = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count("&") for line in rows} == {9}
    assert any("{--} & & {--} &" in line for line in rows)


def test_markdown_says_what_it_was_made_with_and_sets_off_in_bold(searched):
    text = as_markdown(printed_table(searched), made_with(searched.run, "ubt table runs/toy"))
    assert text.startswith("<!-- ubt table runs/toy -->\n<!-- study toy: 3 trials -->\n")
    assert "torch 2.15.0" in text
    assert re.search(r"\| trial-1 \| .* \| \*\*11.0\*\* \(9\.\d–1\d\.\d\) \|", text)


def test_effects_of_an_ablation_are_differences_with_their_sign(run_of, trial):
    label = "no-overfit"
    records = [trial(seed, seed=seed, asr=0.1 + seed / 100, ca=0.8, label="base") for seed in range(3)]
    more = {"changes": {SAMPLES: 8}, "label": label}
    records += [trial(3 + seed, seed=seed, asr=0.5 + seed / 40, ca=0.8, **more) for seed in range(3)]
    table = printed_table(find(run_of(*records)))
    assert (table.kind, table.signed) == ("effects", True)
    assert "& +41.5 &" in as_latex(table, []) or r"\bfseries +41.5 &" in as_latex(table, [])
    with pytest.raises(UserError, match="single defense"):
        printed_table(find(run_of(*records)), "comparison")


def test_defenses_over_attacks_have_a_column_a_rate(run_of, trial):
    abl = trial(1, asr=0.3, ca=0.82, changes={"defense": {"kind": "abl"}})
    table = printed_table(find(run_of(trial(0, asr=0.1, ca=0.82), abl)))
    assert table.kind == "comparison"
    assert [title for title, _ in table.columns][:3] == ["defense", "BadNets ASR", "BadNets CA"]
    assert [row[0] for row in table.rows] == ["no defense", "ABL", "UBT"]


def test_the_data_of_a_figure_have_a_line_a_point():
    figure = go.Figure(
        go.Scatter(name="front", x=[0.1, 0.2], y=[0.8, None], customdata=["t1", "t2"], meta={"split": "val"})
    )
    figure.add_trace(go.Heatmap(x=[1, 2], y=["a"], z=[[0.5, 0.6]]))
    figure.update_xaxes(title="ASR")
    table = figure_table(figure)
    assert list(table["trial"].dropna()) == ["t1", "t2"]
    assert list(table["z"].dropna()) == [0.5, 0.6]
    assert set(table["axes"]) == {"y by ASR"}
    assert set(table["split"].dropna()) == {"val"}
