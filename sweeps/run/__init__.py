"""One run of a study: its folder, launch, resume and progress."""
