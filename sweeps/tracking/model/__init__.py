"""The chosen model for MLflow: its weights from the store, and its entry among MLflow's models."""
