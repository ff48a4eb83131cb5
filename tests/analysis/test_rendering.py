import json

import plotly.graph_objects as go

from analysis.rendering import Texts, figure_json


def test_a_text_that_two_figures_show_is_on_the_page_once():
    texts = Texts()
    figures = [go.Figure(go.Scatter(x=[1, 2], y=[0, 1 / 3], text=["<b>t0</b>", other])) for other in ("t1", "t2")]
    first, second = (json.loads(figure_json(figure, texts)) for figure in figures)
    assert json.loads(texts.json) == ["<b>t0</b>", "t1", "t2"]
    assert (first["data"][0]["texts"], second["data"][0]["texts"]) == ([0, 1], [0, 2])
    assert first["data"][0]["y"] == [0, 0.333333]


def test_no_text_can_end_its_script_element():
    texts = Texts()
    figure_json(go.Figure(go.Scatter(x=[1], y=[1], text=["</script>"])), texts)
    assert "</script>" not in texts.json
