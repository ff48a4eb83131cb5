"""Defenses compared over attacks and seeds: the paper's main table, and what it says in words."""

from analysis.comparison.compare import compare
from analysis.comparison.model import Cell, Comparison, Row
from analysis.comparison.output import comparison_markdown, comparison_table

__all__ = ["Cell", "Comparison", "Row", "compare", "comparison_markdown", "comparison_table"]
