"""`pegasus demo`: Pegasus at work on SSH servers of its own."""

from __future__ import annotations


def demo() -> None:
    """Show Pegasus at work: a few SSH nodes on this machine, an example queue, and what ran where."""
    import typer

    from pegasus_py.run.demo import show

    raise typer.Exit(int(show()))
