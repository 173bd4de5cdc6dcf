"""What is to run, and what must come of it: random tasks, and a queue file that says them in many ways."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

JOB = """\
printf '%s %s %s\\n' "$PEGASUS_ATTEMPT" "$n" "$PEGASUS_SUBNODE" >>"$HOME/began"
read -r _s _x _o <"{plan}/$n"
_half=$((_o / 2))
while [ "$_o" -gt 0 ]; do
    [ "$_o" -ne "$_half" ] || [ "$_s" = 0 ] || sleep "$_s"
    case $_o in
        *5) printf 'task %s, line %s, said to stderr\\n' "$n" "$_o" >&2 ;;
        *) printf 'task %s, line %s: \\303\\244 \\377\\033[1m\\r\\n' "$n" "$_o" ;;
    esac
    _o=$((_o - 1))
done
[ "$_half" -gt 0 ] || [ "$_s" = 0 ] || sleep "$_s"
[ "$_x" -ne 137 ] || kill -KILL $$
exit "$_x"
"""
"""What each job does, read by its shell with `n` set: it first tells a file that Pegasus knows nothing of."""

CALL = '. "$HOME/job"'
_NAME = re.compile(r"{{ *(\w+) *}}")
_NUMBER = re.compile(r"\bn=(\d+)")


@dataclass(frozen=True, slots=True)
class Task:
    """`seconds` that it takes, exit `status`, `lines` of output."""

    number: int
    seconds: float
    status: int
    lines: int

    @property
    def output(self) -> bytes:
        """Every byte that it writes to stdout and stderr."""
        return b"".join(
            b"task %d, line %d, said to stderr\n" % (self.number, line)
            if line % 10 == 5
            else b"task %d, line %d: \303\244 \377\033[1m\r\n" % (self.number, line)
            for line in range(self.lines, 0, -1)
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """`tasks` by number, in the order of the queue; `text` is the queue file, `comments` the lines that must stay."""

    tasks: dict[int, Task]
    text: str
    comments: tuple[str, ...]

    @property
    def order(self) -> list[int]:
        return list(self.tasks)


def random_plan(rng: random.Random, count: int, longest: float = 0.3, *, first: int = 1) -> Plan:
    """`count` tasks of at most `longest` seconds, about a third of which fail, numbered from `first`."""
    tasks = {}
    for number in range(first, first + count):
        seconds = rng.choice([0.0, 0.0, rng.uniform(0, longest), rng.uniform(0, longest)])
        status = rng.choice([0, 0, 0, 0, rng.randint(1, 125), 137])
        lines = rng.choice([0, 1, 2, 7, 25, rng.randint(0, 600)])
        tasks[number] = Task(number, round(seconds, 3), status, lines)
    text, comments = _queue_text(rng, list(tasks))
    return Plan(tasks, text, comments)


def even_plan(count: int, seconds: float = 0.0, lines: int = 1) -> Plan:
    """`count` tasks that are all alike and succeed, in plain entries."""
    tasks = {n: Task(n, seconds, 0, lines) for n in range(1, count + 1)}
    return Plan(tasks, "".join(f"- n={n}; {CALL}\n" for n in tasks), ())


def _queue_text(rng: random.Random, numbers: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    parts, comments, at = ["# the queue of a torture test\n"], ["# the queue of a torture test"], 0
    while at < len(numbers):
        n = numbers[at]
        left = len(numbers) - at
        if rng.random() < 0.15:
            comments.append(f"# before task {n}: äöü")
            parts.append(comments[-1] + "\n" + rng.choice(["", "\n"]))
        if n % 10 == 0 and n > 0 and left >= 20 and rng.random() < 0.5:
            used = 10 * rng.randint(2, min(4, left // 10))
            tens = ", ".join(str(t) for t in range(n // 10, (n + used) // 10))
            parts.append(
                f"- command: n={{{{ i }}}}{{{{ j }}}}; {CALL}\n  i: [{tens}]\n  j: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
            )
        elif n % 10 == 0 and n > 0 and left >= 3 and rng.random() < 0.7:
            used = 3
            parts.append(f"- command:  # three\n{_commands('{{ tens }}', 3)}  tens: {n // 10}\n")
        elif left >= 3 and rng.random() < 0.15:
            used = rng.randint(2, min(9, left))
            values = ", ".join(str(n + k) for k in range(used))
            parts.append(f"- command: n={{{{ i }}}}; {CALL}\n  i: [{values}]\n  options: {{timeout: 10m}}\n")
        else:
            used = 1
            parts.append(rng.choice(SINGLE).format(n=n, call=CALL))
        at += used
    return "".join(parts), tuple(comments)


SINGLE = [
    "- n={n}; {call}\n",
    "- n={n}; {call}\n",
    "- n={n}; {call}  # a remark\n",
    "- command: n={n}; {call}\n",
    "- {{command: 'n={n}; {call}', note: [x]}}\n",
    "-\n  command: |\n    n={n}\n    # a comment of the shell's\n\n    {call}\n",
    "- >-\n  n={n};\n  {call}\n\n",
    "- 'n={n}; {call}'\n",
]


def _commands(tens: str, count: int) -> str:
    return "".join(f"    - n={tens}{unit}; {CALL}\n" for unit in range(count))


def number_of(command: str) -> int:
    """The task that a rendered command is."""
    found = _NUMBER.search(command)
    assert found, f"not a command of this plan: {command!r}"
    return int(found[1])


def _filled(template: str, values: dict[str, str]) -> str:
    return _NAME.sub(lambda name: values[name[1]], template)


def numbers_in(text: str) -> list[int]:
    """The tasks that a queue (or consumed) file means, in order. Not with Pegasus's own reader."""
    loaded: Any = yaml.load(text, yaml.BaseLoader)
    numbers: list[int] = []
    for item in loaded or []:
        entry: dict[str, Any] = {"command": item} if isinstance(item, str) else dict(item)
        commands = entry.pop("command")
        entry.pop("options", None)
        lists = [v if isinstance(v, list) else [v] for v in entry.values()]
        for command in commands if isinstance(commands, list) else [commands]:
            for values in itertools.product(*lists):
                named = dict(zip(entry, values, strict=True))
                numbers.append(number_of(_filled(command, named)))
    return numbers
