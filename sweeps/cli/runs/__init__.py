"""Commands about runs that are there: several held against each other, and a trial computed again."""
