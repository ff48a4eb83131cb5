"""A trial of a run computed again in a fresh store, and compared with what its record and its artifacts say."""
