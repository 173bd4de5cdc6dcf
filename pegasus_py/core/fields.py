"""What queue and hosts files have in common: texts, lists of texts, and names of parameters."""

from __future__ import annotations

import re

from pegasus_py.core.nodes import Node, Scalar, Sequence
from pegasus_py.errors import BadInput, Place

_NAME = re.compile(r"[^\W\d]\w*")
_JINJA = frozenset(("and", "or", "not", "in", "is", "if", "else", "recursive", "loop", "self", "range"))
_CONSTANTS = frozenset(("true", "false", "none", "True", "False", "None"))


def at(node: Node, file: str) -> Place:
    return Place(file, node.mark.line, node.mark.column)


def texts(node: Node, file: str, key: str) -> tuple[Scalar, ...]:
    """The value of `key`, a text or a list of texts, as a tuple with at least one text."""
    if isinstance(node, Scalar):
        return (node,)
    if not isinstance(node, Sequence):
        raise BadInput(
            at(node, file), f"`{key}` takes a text or a list of texts, not a mapping; quote it if it is text"
        )
    if not node.items:
        raise BadInput(at(node, file), f"`{key}` is an empty list, so nothing would run; give it a value")
    scalars = []
    for item in node.items:
        if not isinstance(item, Scalar):
            raise BadInput(
                at(item, file), f"the list of `{key}` takes texts only; quote this value if it is text"
            )
        scalars.append(item)
    return tuple(scalars)


def a_text(node: Node, file: str, key: str) -> str:
    """The text of `key`. Raises BadInput for what is not text, for no text at all, and for what no shell can take."""
    if not isinstance(node, Scalar):
        raise BadInput(at(node, file), f"`{key}` takes one text; quote it")
    if node.plain and not node.text:
        instead = "remove the entry" if key == "command" else "'' for an empty text"
        raise BadInput(at(node, file), f"`{key}` has no value here; write one, or {instead}")
    if "\0" in node.text:
        raise BadInput(at(node, file), f"`{key}` has a NUL character, which no command can take; remove it")
    return node.text


def name_of_parameter(key: Scalar, file: str) -> str:
    """The key of a parameter, which must be a name that templates can use."""
    name = key.text
    if not _NAME.fullmatch(name) or name in _JINJA | _CONSTANTS:
        raise BadInput(
            at(key, file),
            f"{name!r} cannot be a parameter's name in a template; use letters, digits and _",
        )
    return name
