"""What a study would run and cost, before anything runs."""
