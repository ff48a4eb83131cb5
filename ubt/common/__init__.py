"""What everything else stands on: errors, whole files, paths, seeds, fingerprints, statistics. Loads no torch."""
