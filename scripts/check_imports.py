"""Checks that the import arrows point down and that each foreign library is met in its own place.

    python scripts/check_imports.py [PACKAGE_DIRECTORY]

Prints one line `file:line: what` per fault; exit status 1 if there is one, 2 if there is nothing to check.
Imports inside functions and under `if TYPE_CHECKING` count, and so does `import_module("name")`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

FLOORS = {
    "__main__": 5,
    "cli": 4,
    "run": 3,
    "node": 2,
    "store": 2,
    "show": 2,
    "core": 1,
    "errors": 0,
    "lean": 0,
}
"""A module may import its own room and every floor below it. Rooms on one floor do not know each other."""

ONLY_IN = {
    "asyncssh": ("node/ssh*.py", "node/ssh*/*.py", "node/demoserver.py"),
    "filelock": ("store/*.py",),
    "rich": ("show/*.py",),
    "typer": ("cli/*.py",),
    "jinja2": ("core/template.py", "core/sandbox.py"),
    "yaml": ("core/yamltext.py",),
}


def main(arguments: list[str]) -> int:
    package = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / "pegasus_py"
    files = sorted(package.rglob("*.py"))
    if not files:
        print(f"{package}: no Python files here", file=sys.stderr)
        return 2
    faults = [f"{file}:{line}: {what}" for file in files for line, what in faults_of(file, package)]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


def faults_of(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield line and description of each fault of one file."""
    relative = file.relative_to(package)
    room = relative.parts[0].removesuffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    if room != "__init__" and room not in FLOORS:
        yield 1, f"{room!r} is not a room of the house; they are {', '.join(FLOORS)}"
    for line, name in imported_names(tree, (package.name, *relative.with_suffix("").parts)):
        head, *rest = name.split(".")
        if head == package.name:
            target = rest[0] if rest else "__init__"
            if target in FLOORS and target != room and FLOORS[target] >= FLOORS.get(room, 0):
                yield line, f"{room} may not import {target}: arrows point down"
        elif head in ONLY_IN and not any(fnmatch(relative.as_posix(), place) for place in ONLY_IN[head]):
            yield line, f"{head} is imported only in {' and '.join(ONLY_IN[head])}"
    for line in unpinned_host_keys(tree):
        yield line, "known_hosts=None accepts any host key"


def imported_names(tree: ast.AST, module: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of everything imported; `module` is where the tree stands."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = [*module[: len(module) - level]] if level else []
                prefix = ".".join([*base, *([origin] if origin else [])])
                yield from ((node.lineno, f"{prefix}.{name.name}") for name in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def unpinned_host_keys(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="known_hosts", value=ast.Constant(value=None)):
                yield node.value.lineno
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    match key, value:
                        case ast.Constant(value="known_hosts"), ast.Constant(value=None):
                            yield value.lineno


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
