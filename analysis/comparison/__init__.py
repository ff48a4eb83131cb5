"""Defenses compared over attacks and seeds: the paper's main table, and what it says in words."""

from analysis.comparison.compare import AttackResult, Comparison, Row, compare
from analysis.comparison.output import comparison_markdown, comparison_table

__all__ = ["AttackResult", "Comparison", "Row", "compare", "comparison_markdown", "comparison_table"]
