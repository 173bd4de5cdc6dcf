"""The reserved mapping `options:` of an entry: read and written. docs/options.md explains each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pegasus_py.core.fields import a_text, at, texts
from pegasus_py.core.model import RETRYABLE, JobOptions, JobState
from pegasus_py.core.nodes import Mapping, Node
from pegasus_py.core.text import format_duration, parse_duration
from pegasus_py.errors import BadInput

KNOWN = JobOptions.__struct_fields__
MAX_RETRIES = 1_000_000
_DURATIONS = ("timeout", "retry_delay", "lost_after")


def parse_options(node: Node, file: str) -> JobOptions:
    """Raises BadInput; an unknown option is an error that names the known ones."""
    if not isinstance(node, Mapping):
        raise BadInput(at(node, file), f"`options` takes a mapping with any of: {', '.join(KNOWN)}")
    found: dict[str, Any] = {}
    for key, value in node.items:
        if key.text not in KNOWN:
            raise BadInput(at(key, file), f"unknown option {key.text!r}; the options are: {', '.join(KNOWN)}")
        found[key.text] = _value(key.text, value, file)
    return JobOptions(**found)


def _value(key: str, node: Node, file: str) -> object:
    if key == "retry_on":
        return tuple(
            dict.fromkeys(_state(a_text(one, file, key), one, file) for one in texts(node, file, key))
        )
    text = a_text(node, file, key)
    if key in _DURATIONS:
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            raise BadInput(at(node, file), f"{key}: {error}") from None
        if key == "timeout" and not seconds:
            raise BadInput(at(node, file), "timeout: must be more than 0; leave it out for no limit")
        return seconds
    if key == "retries":
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= MAX_RETRIES):
            raise BadInput(
                at(node, file), f"retries: {text!r} is not a whole number from 0 to {MAX_RETRIES:,}"
            )
        return int(text)
    if not text.strip():
        raise BadInput(at(node, file), f"{key}: is empty; leave it out")
    if key == "name" and not text.isprintable():
        raise BadInput(at(node, file), "name: must be one line of printable characters")
    return text


def misplaced(params: Iterable[str], templates: Sequence[str]) -> str:
    """What is wrong if a name of an option stands among the parameters and no text has it; nothing if all is well.

    Then it was meant to be the option.
    """
    for name in params:
        if name in KNOWN and not any(name in text for text in templates):
            return (
                f"{name!r} stands beside `command` and no command uses it: an option belongs under `options:`"
            )
    return ""


def _state(text: str, node: Node, file: str) -> JobState:
    for state in RETRYABLE:
        if state == text:
            return state
    raise BadInput(at(node, file), f"retry_on: {text!r} is none of: {', '.join(RETRYABLE)}")


def option_texts(options: JobOptions) -> list[tuple[str, tuple[str, ...]]]:
    """The options that are set, as texts that `parse_options` reads back as equal."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for key in KNOWN:
        value = getattr(options, key)
        if value is None:
            continue
        if key == "retry_on":
            found.append((key, tuple(value)))
        else:
            found.append((key, (format_duration(value) if key in _DURATIONS else str(value),)))
    return found
