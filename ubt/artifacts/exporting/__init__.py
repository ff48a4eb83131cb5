"""A stored model as files for other programs: whole weights, and beside them what it takes to use and to trust them."""
