"""Mistakes in data are gathered and told together, the first twenty in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ubt.errors import Problem, UserError

LISTED = 20
"""A data set with one mistake often has it in every row: nobody reads ten thousand lines."""


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Do nothing if all is well.

    Raises:
        UserError: with the first `LISTED` problems and the number of those that are not listed.
    """
    listed, more = list(problems[:LISTED]), len(problems) - LISTED
    if more > 0:
        listed.append(Problem(f"and {more} more", f"only the first {LISTED} problems are listed"))
    if listed:
        raise UserError(listed)


@contextmanager
def gather(problems: list[Problem]) -> Iterator[None]:
    """Move the problems of a `UserError` into `problems`, so that what comes next is checked as well."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)
