"""Entries of the queue: what an item of `queue.yaml` means, what is left of it after a pop, and how it is written.

An entry with parameters is the product of its commands and parameters, in the order written, the last parameter
fastest. It is never expanded: 10^12 combinations cost as little as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pegasus_py.core import grid
from pegasus_py.core.fields import a_text, name_of_parameter, texts
from pegasus_py.core.joboptions import option_texts, parse_options
from pegasus_py.core.model import JobOptions, Task
from pegasus_py.core.nodes import Mapping, Node, Scalar
from pegasus_py.core.yamlwrite import inline, one_line, scalar
from pegasus_py.errors import BadInput, Place

NOT_YET = ("slots", "allocation_policy")
"""Keys that mean something in other versions of these files: refused, so that they are never taken for parameters."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Commands (templates, not yet rendered) times parameters, each with at least one value."""

    commands: tuple[str, ...]
    params: tuple[tuple[str, tuple[str, ...]], ...] = ()
    options: JobOptions = JobOptions()
    place: Place = field(default=Place("queue.yaml"), compare=False)

    @property
    def _dimensions(self) -> tuple[tuple[str, ...], ...]:
        return (self.commands, *(values for _, values in self.params))

    @property
    def size(self) -> int:
        """How many tasks it stands for; at least one."""
        return grid.size(self._dimensions)

    def first(self) -> Task:
        if not self.params:
            return Task(self.commands[0], (), self.options, self.place)
        return self._task(grid.first(self._dimensions))

    def rest(self) -> tuple[Entry, ...]:
        """What is left without the first task: at most one entry for each dimension, in the same order of tasks."""
        return tuple(
            Entry(
                commands,
                tuple((name, v) for (name, _), v in zip(self.params, values, strict=True)),
                self.options,
                self.place,
            )
            for commands, *values in grid.rest(self._dimensions)
        )

    @property
    def templates(self) -> list[str]:
        """The texts in which parameters are put."""
        return [*self.commands, *([self.options.cancel] if self.options.cancel else [])]

    def tasks(self) -> Iterator[Task]:
        """All tasks in order."""
        return map(self._task, grid.combinations(self._dimensions))

    def _task(self, values: tuple[str, ...]) -> Task:
        names = (name for name, _ in self.params)
        return Task(values[0], tuple(zip(names, values[1:], strict=True)), self.options, self.place)


def parse_entry(node: Node, file: str) -> Entry:
    """The entry that an item of the list in `file` is. Raises BadInput."""
    place = Place(file, node.mark.line, node.mark.column)
    if isinstance(node, Scalar):
        return Entry((_command(node, file),), place=place)
    if not isinstance(node, Mapping):
        raise BadInput(
            place, "an entry is a command or a mapping with `command`, not a list; quote it, or indent less"
        )
    commands: tuple[str, ...] = ()
    params = []
    options = JobOptions()
    for key, value in node.items:
        if key.text == "command":
            commands = tuple(_command(one, file) for one in texts(value, file, "command"))
        elif key.text == "options":
            options = parse_options(value, file)
        elif key.text in NOT_YET:
            raise _at(key, file, f"`{key.text}` is not supported yet; remove it")
        elif all(k.text != "command" for k, _ in node.items):
            break
        else:
            name = name_of_parameter(key, file)
            params.append((name, tuple(a_text(one, file, name) for one in texts(value, file, name))))
    if not commands:
        raise BadInput(
            place, 'an entry without `command`; add it, or quote the line if ": " is part of a command'
        )
    return Entry(commands, tuple(params), options, place)


def _at(node: Node, file: str, what: str) -> BadInput:
    return BadInput(Place(file, node.mark.line, node.mark.column), what)


def _command(node: Scalar, file: str) -> str:
    text = a_text(node, file, "command")
    if not text.strip():
        raise _at(node, file, "an empty command; write one, or remove the entry")
    return text


def dump_entry(entry: Entry, indent: int = 0) -> str:
    """The entry as whole lines of a block list whose `-` stand `indent` columns in; read back it is equal."""
    if _is_bare(entry):
        return f"{' ' * indent}- {scalar(entry.commands[0], indent + 2)}\n"
    return _block(entry, indent)


def _is_bare(entry: Entry) -> bool:
    return len(entry.commands) == 1 and not entry.params and entry.options == JobOptions()


def _block(entry: Entry, indent: int) -> str:
    margin = " " * indent
    if len(entry.commands) == 1:
        lines = [f"command: {scalar(entry.commands[0], indent + 4)}"]
    else:
        lines = ["command:", *(f"  - {scalar(command, indent + 6)}" for command in entry.commands)]
    lines += [f"{inline(key)}: {text}" for key, text in _tail(entry)]
    return f"{margin}- " + f"\n{margin}  ".join(lines) + "\n"


def dump_flow(entry: Entry) -> str:
    """The entry on one line, as an item of a flow list (`[a, b]`), without a comma; read back it is equal."""
    if _is_bare(entry):
        return inline(entry.commands[0], flow=True)
    pairs = [("command", _values(entry.commands)), *_tail(entry)]
    return "{" + ", ".join(f"{inline(key, flow=True)}: {text}" for key, text in pairs) + "}"


def consumed_record(task: Task, note: str) -> str:
    """What `consumed.yaml` keeps of a started task: a comment line with `note`, then the task as an entry.

    A command of one line makes one line of it whatever its parameters, so that `tail -n 2` is the last such task.
    """
    entry = Entry((task.command,), tuple((name, (value,)) for name, value in task.params), task.options)
    if not note.isprintable():
        note = "".join(c if c.isprintable() else " " for c in note)
    if not one_line(task.command):
        return f"# {note}\n{_block(entry, 0)}"
    if _is_bare(entry):
        return f"# {note}\n- command: {inline(task.command)}\n"
    return f"# {note}\n- {dump_flow(entry)}\n"


def _tail(entry: Entry) -> list[tuple[str, str]]:
    """Keys and values after `command`, each value on one line."""
    pairs = [(name, _values(values)) for name, values in entry.params]
    if options := option_texts(entry.options):
        inner = ", ".join(f"{key}: {_values(values)}" for key, values in options)
        pairs.append(("options", "{" + inner + "}"))
    return pairs


def _values(values: tuple[str, ...]) -> str:
    if len(values) == 1:
        return inline(values[0], flow=True)
    return "[" + ", ".join(inline(value, flow=True) for value in values) + "]"
