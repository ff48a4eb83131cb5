"""The `ubt` command: one file a command."""
