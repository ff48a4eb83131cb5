"""What the report opens with: the result of a run in words."""
