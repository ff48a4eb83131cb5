"""HTML pages of this package's templates: what they share in how they are written."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from plotly.graph_objects import Figure

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
    environment.filters |= {"percent": percent, "breakable": breakable}
    return environment.get_template(name)


def breakable(text: str) -> Markup:
    """Return escaped text that may wrap behind an underscore, as names of settings are long."""
    return escape(text).replace("_", Markup("_<wbr>"))


def figure_json(figure: Figure) -> Markup:
    """Return a figure as JSON that may stand inside a script element: no `<` can end it."""
    return Markup(figure.to_json().replace("<", "\\u003c"))  # noqa: S704 — escaped as JSON allows
