"""How configurations, durations, sizes and tables read as plain text: one formatter for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from pydantic import JsonValue


def describe(changes: Mapping[str, JsonValue]) -> str:
    """Return changes in one line, by the last part of each path; a whole part by its kind and settings."""
    return ", ".join(f"{path.rpartition('.')[2]}={part_text(value)}" for path, value in changes.items()) or "base"


def part_text(value: JsonValue, text: Callable[[JsonValue], str] = str) -> str:
    """Return a part of a configuration by its kind and settings, any other value as `text` has it.

    Example:
        >>> [part_text(value) for value in ({"kind": "gain"}, {"kind": "knn", "neighbours": 16}, 0.1)]
        ['gain', 'knn (neighbours 16)', '0.1']
    """
    if not isinstance(value, dict) or "kind" not in value:
        return text(value)
    settings = ", ".join(f"{name} {part_text(part, text)}" for name, part in value.items() if name != "kind")
    return f"{value['kind']} ({settings})" if settings else str(value["kind"])


def duration(seconds: float) -> str:
    """Return seconds in the units that suit them.

    Example:
        >>> [duration(seconds) for seconds in (0.44, 42, 200, 7500)]
        ['0.4 s', '42 s', '3 min 20 s', '2 h 05 min']
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(size_bytes: int) -> str:
    """Return a number of bytes in decimal units, by rich.

    Example:
        >>> [size(number) for number in (0, 200, 16_200, 3_400_000_000)]
        ['0 bytes', '200 bytes', '16.2 kB', '3.4 GB']
    """
    from rich.filesize import decimal  # noqa: PLC0415 — only what prints needs it

    return decimal(size_bytes)


Align = Literal["left", "right"]


def text_table(columns: Mapping[str, Align], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as lines, by rich: a heading, then a line a row. No line is cut or wrapped, however wide.

    `columns` are the headings with the side that their column is aligned to.
    """
    from rich.console import Console  # noqa: PLC0415 — only what prints needs it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for heading, side in columns.items():
        table.add_column(heading, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # as text: brackets in a name are no markup
    console = Console(width=_WIDER_THAN_ANY_LINE, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


_WIDER_THAN_ANY_LINE = 10_000
