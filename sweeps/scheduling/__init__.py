"""Which trial starts now, and what became of the others. Knows nothing of Ray."""
