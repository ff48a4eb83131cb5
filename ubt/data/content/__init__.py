"""What a data set consists of, row by row: written down where it is planned, compared where it is used."""
