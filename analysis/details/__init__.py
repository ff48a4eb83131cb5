"""Every trial for the page's script: the table that can be searched and filtered, and what is shown of one trial."""
