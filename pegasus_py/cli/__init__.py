"""One file per verb: parse, compose, print."""

# What `signal` is made of; to import that takes 2 ms.
import _signal  # type: ignore[import-not-found]

_is_ours = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
if _is_ours:
    # Until the command can be ended in good order, Ctrl-C just ends it: there is nothing to put in order yet.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def interruptible() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, unless whoever started us has it ignored."""
    if _is_ours:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
