"""Data sets: generated scenes, CSV files, WebDataset shards. Loads no torch."""
