"""Printed tables in LaTeX (booktabs, siunitx) and Markdown; what they were made with stands above them as comments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.formatting import LATEX
from analysis.printed.tables import Number, PrintedTable, cells_of, width_of
from analysis.records import RunRecords


def made_with(run: RunRecords, command: str) -> tuple[str, ...]:
    """Return the command that printed a table, and the study, code and libraries that it comes from; a line each."""
    records = run.records
    versions = dict.fromkeys(f"{name} {version}" for record in records for name, version in record.versions.items())
    commits = dict.fromkeys(record.commit for record in records if record.commit)
    lines = [command, f"study {run.name}: {len(records):,} trials"]
    lines += [f"code {', '.join(commits)}"] if commits else []
    return (*lines, *([f"with {', '.join(versions)}"] if versions else []))


def as_latex(table: PrintedTable, comments: Iterable[str]) -> str:
    r"""Return a tabular of booktabs, with columns of siunitx: needs `\usepackage{booktabs, siunitx}`.

    Numbers stand in `S` columns, each with its interval in a column beside it.
    """
    columns = [_column(table, at, number) for at, (_, number) in enumerate(table.columns)]
    head = [_head(title, number) for title, number in table.columns]
    lines = [f"% {_one_line(comment)}" for comment in (*comments, *table.notes)]
    lines += [
        r"% needs \usepackage{booktabs, siunitx}",
        rf"\begin{{tabular}}{{{' '.join(columns)}}}",
        r"\toprule",
        rf"{' & '.join(head)} \\",
        r"\midrule",
        *(rf"{' & '.join(cells_of(row, _escaped, lambda one: _number(one, table.signed)))} \\" for row in _full(table)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _full(table: PrintedTable) -> Iterable[Sequence[Number | str]]:
    """Yield rows in which numbers that are missing take both of their columns."""
    for row in table.rows:
        yield [
            _Missing() if cell is None and number else cell or ""
            for cell, (_, number) in zip(row, table.columns, strict=True)
        ]


class _Missing(str):
    """A number that was not measured: text in both of its columns."""

    __slots__ = ()


def _column(table: PrintedTable, at: int, number: bool) -> str:
    if not number:
        return "l"
    sign = "+" if table.signed else ""
    return rf"S[table-format={sign}{width_of(table, at)}.1] @{{\,}} l"


def _head(title: str, number: bool) -> str:
    return rf"\multicolumn{{2}}{{c}}{{{_escaped(title)}}}" if number else _escaped(title)


def _number(one: Number, signed: bool) -> str:
    mean, low, high = (f"{value:{'+' if signed else ''}.1f}" for value in (one.mean, one.low, one.high))
    between = f"[{_minus(low)}, {_minus(high)}]"
    set_off = r"\bfseries " if one.best else ""
    return rf"{set_off}{mean} & {{\scriptsize {between}}}"


def _minus(number: str) -> str:
    return f"${number}$" if number[0] in "+-" else number


def _escaped(text: str) -> str:
    if isinstance(text, _Missing):
        return "{--} &"
    return "".join(LATEX.get(letter, letter) for letter in text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def as_markdown(table: PrintedTable, comments: Iterable[str]) -> str:
    """Return a Markdown table; what is set off is bold, and notes follow it."""
    rows = [[title for title, _ in table.columns], ["---:" if number else "---" for _, number in table.columns]]
    rows += [
        cells_of(row, lambda text: text.replace("|", "\\|"), lambda n: _plain(n, table.signed)) for row in table.rows
    ]
    lines = [f"<!-- {_one_line(comment).replace('--', '- -')} -->" for comment in comments]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)]) + "\n"


def _plain(one: Number, signed: bool) -> str:
    mean, low, high = (f"{value:{'+' if signed else ''}.1f}" for value in (one.mean, one.low, one.high))
    set_off = f"**{mean}**" if one.best else mean
    return f"{set_off} ({low} … {high})" if signed else f"{set_off} ({low}–{high})"
