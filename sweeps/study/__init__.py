"""Studies: their configuration, their files, and what is wrong with them."""
