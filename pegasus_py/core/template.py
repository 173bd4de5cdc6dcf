"""Templates: commands and host names with parameters in them, in Jinja2's language.

A value is data: what it contains is never rendered. Text without "{{" and "{%" costs nothing; jinja2 is imported
when the first real template comes. Jinja2's comments are off: the shell's `${#name}` would begin one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pegasus_py.core.model import Params, SubNode, Task
from pegasus_py.errors import BadInput, Place

_NOWHERE = Place("template")


def is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


def render(text: str, params: Params | Mapping[str, str], place: Place, on: str = "") -> str:
    """`text` with its parameters put in. The result is exact: no escaping, line ends and final newlines kept.

    `on` is the sub-node whose parameters are among them.

    Raises BadInput at `place` for bad syntax, for a name that `params` does not have (it says which there are), and
    for a template that would cost the controller too much time or memory.
    """
    if not is_template(text):
        return text
    from pegasus_py.core import sandbox

    values = dict(params)
    try:
        return sandbox.render(text, values)
    except sandbox.UndefinedName as error:
        where = f" on {on}; defined there" if on else "; defined here"
        raise BadInput(place, f"{error}{where}: {_listed(values)}") from None
    except sandbox.TemplateFault as error:
        raise BadInput(place, str(error)) from None


def undefined_names(text: str, place: Place = _NOWHERE) -> frozenset[str]:
    """The names that `text` cannot do without. Raises BadInput at `place` for bad syntax."""
    if not is_template(text):
        return frozenset()
    from pegasus_py.core import sandbox

    try:
        return sandbox.names(text)
    except sandbox.TemplateFault as error:
        raise BadInput(place, str(error)) from None


def merge_params(subnode: SubNode, task: Task) -> Params:
    """What a command of `task` sees on `subnode`: the host's parameters, then the task's.

    Raises BadInput if both define a name.
    """
    if not task.params:
        return subnode.params
    host = {name for name, _ in subnode.params}
    for name, _ in task.params:
        if name in host:
            raise BadInput(
                task.place,
                f"the parameter {name!r} is defined by this entry and by the host {subnode.name}; rename one of them",
            )
    return subnode.params + task.params


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "") or "nothing"
