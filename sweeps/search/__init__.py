"""Which configurations a study tries: designs laid out beforehand, and Optuna's adaptive search."""
