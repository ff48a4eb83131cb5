"""The front shown: every epoch as a table, how sure its members are, and the page's table of it."""
