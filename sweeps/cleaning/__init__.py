"""Clean a suspicious checkpoint, as a defender would: from what there is to a study, its sweep, and a cleaned file."""
