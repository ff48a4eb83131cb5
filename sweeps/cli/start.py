"""Where `ubt` starts: signals are taken before anything is imported that takes time."""

from __future__ import annotations

from sweeps.cli.ends import command_end, left_in_time


def main() -> None:
    """Run the command line."""
    with left_in_time(), command_end():
        from sweeps.cli.app import main as run  # noqa: PLC0415 — most of a second, more on a busy machine

        run()


def __getattr__(name: str) -> object:
    """Return the application behind the command, for who reads it."""
    if name != "app":
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    from sweeps.cli.app import app  # noqa: PLC0415 — as above

    return app
