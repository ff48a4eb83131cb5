"""Tables as papers print them: LaTeX with booktabs and siunitx, Markdown, CSV; and the data of figures as CSV."""
