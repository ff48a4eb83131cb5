"""HTML pages of this package's templates: what they share in how they are written."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from analysis.formatting import percent


def template(name: str) -> Template:
    """Return a template; what it is given is escaped, and a name that it is not given is an error."""
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "breakable": breakable, "prose": prose}
    return environment.get_template(name)


def breakable(text: str) -> Markup:
    """Return escaped text that may wrap behind an underscore, as names of settings are long."""
    return escape(text).replace("_", Markup("_<wbr>"))


def prose(text: str) -> Markup:
    """Return escaped text with what stands in backticks as code."""
    parts = str(escape(text)).split("`")
    if len(parts) % 2 == 0:  # one is left over, so none is taken for a pair
        return escape(text)
    return Markup("".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts)))  # noqa: S704


class Texts:
    """The texts of a page's figures, each once: what is shown of a configuration is shown in many places."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """Return where a text stands among all."""
        return self._places.setdefault(text, len(self._places))

    @property
    def json(self) -> Markup:
        """Return all texts as JSON that may stand inside a script element."""
        return as_json(tuple(self._places))


def figure_json(figure: Figure, texts: Texts) -> Markup:
    """Return a figure as JSON that may stand inside a script element; its traces' texts are places among `texts`.

    Numbers have six digits, more than a screen shows.
    """
    drawn = json.loads(figure.to_json(), parse_float=lambda number: float(f"{float(number):.6g}"))
    for trace in drawn["data"]:
        if isinstance(trace.get("text"), list):
            trace["texts"] = [texts.place(str(text)) for text in trace.pop("text")]
    return as_json(drawn)


def as_json(value: object) -> Markup:
    """Return JSON that may stand inside a script element: no `<` can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 — escaped as JSON allows


_LEVEL = 5
"""Of compression: the highest one takes twice as long for a hundredth less."""


@cache
def plotly_packed() -> Markup:
    """Return plotly's script compressed, in base64: a third of its size, and the page shows something the sooner."""
    return packed(get_plotlyjs())


@cache
def tabulator_packed() -> Markup:
    """Return the script of the table of trials, Tabulator's (`templates/vendored`), likewise."""
    return packed((files("analysis") / "templates" / "vendored" / "tabulator.min.js").read_text(encoding="utf-8"))


def packed(script: str) -> Markup:
    """Return a script compressed by gzip, in base64: the same for the same script."""
    return Markup(base64.b64encode(gzip.compress(script.encode(), _LEVEL, mtime=0)).decode())  # noqa: S704 — no markup in it
