"""Ctrl-C while the program starts."""

# What `signal` is made of; to import that takes 2 ms.
import _signal  # type: ignore[import-not-found]

_ended_by_it = False


def ends_at_once() -> None:
    """Ctrl-C just ends the program: for the time when there is nothing to put in order, and a traceback says nothing.

    Whoever started us with it ignored has it ignored.
    """
    global _ended_by_it
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _ended_by_it = True


def is_raised() -> None:
    """From now on it raises KeyboardInterrupt again."""
    if _ended_by_it:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
