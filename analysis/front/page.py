"""The front as the report's page shows it."""

from __future__ import annotations

from analysis.findings import Findings
from analysis.page import Cell, PageColumn, PageTable, changes_cell, estimate_cell, table_of
from analysis.points.configurations import Configuration, Split

SPLITS: dict[Split, str] = {"val": "validation", "test": "test"}


def front_table(findings: Findings) -> PageTable:
    """Return the front, by rising ASR: validation, and test beside it."""
    columns: tuple[PageColumn[Configuration], ...] = (
        PageColumn("trial", lambda member: _member(member, findings), kind="name"),
        PageColumn("changes to the base", lambda member: changes_cell(member.changes, findings.run)),
        PageColumn("val ASR", lambda member: estimate_cell(member.val, "asr"), kind="number"),
        PageColumn("val CA", lambda member: estimate_cell(member.val, "ca"), kind="number"),
        PageColumn("test ASR", lambda member: estimate_cell(member.test, "asr"), kind="number"),
        PageColumn("test CA", lambda member: estimate_cell(member.test, "ca"), kind="number"),
    )
    if findings.doubt.chances:
        columns += (
            PageColumn(
                "chance",
                lambda member: _chance(member, findings),
                kind="number",
                hint="probability of being on the front, by a bootstrap over seeds and images",
            ),
            PageColumn(
                "against the choice",
                lambda member: _against(member, findings),
                hint=f"whether a rate differs on the {SPLITS[findings.doubt.split]} split, by its 95% interval",
            ),
        )
    if any(member.seeds > 1 for member in findings.configurations):
        columns += (PageColumn("seeds", _seeds, kind="number", hint="seeds done, of those tried"),)
    return table_of("The front", columns, findings.front)


def _member(member: Configuration, findings: Findings) -> Cell:
    """Return its name, marked where it is the choice or the base itself and not an earlier epoch of that trial."""
    if member is findings.chosen and not findings.run.leaves_out:
        return Cell(member.title, member.title, tag="chosen")
    is_base = findings.base is not None and member.name == findings.base.name
    return Cell(member.title, member.title, tag="base" if is_base else "")


def _chance(member: Configuration, findings: Findings) -> Cell:
    chance = findings.doubt.chances.get(member.name)
    return Cell("–") if chance is None else Cell(f"{100 * chance:.0f}%", chance)


def _against(member: Configuration, findings: Findings) -> Cell:
    if findings.chosen is None or member is findings.chosen:
        return Cell("–")
    return Cell("not distinguishable", 1) if member.name in findings.doubt.alike else Cell("differs", 0)


def _seeds(member: Configuration) -> Cell:
    return Cell(f"{len(member.measured)}/{member.seeds}", len(member.measured))
