"""A run while it is swept: what it is at, its report kept up to date on this machine, and a display in the terminal."""
