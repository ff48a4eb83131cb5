"""Trials as documents: what is asked (`config`, `assignment`) and what came of it (`record`). Loads no torch."""
