"""The stages: pure functions of (settings, inputs, seed) → artifact. The table of them loads no torch."""
