"""The import check itself: this project passes it, and each kind of fault is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_imports.py"


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def package_with(root: Path, file: str, text: str) -> Path:
    package = root / "pegasus_py"
    path = package / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return package


def test_this_project_keeps_its_arrows() -> None:
    result = check()
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("core/scheduler.py", "import pegasus_py.store.ledger", "core may not import store"),
        ("core/scheduler.py", "from pegasus_py import run", "core may not import run"),
        ("core/scheduler.py", "from ..cli import main", "core may not import cli"),
        ("core/scheduler.py", "from .. import node", "core may not import node"),
        ("store/ledger.py", "from pegasus_py.show.console import Console", "store may not import show"),
        ("errors.py", "from pegasus_py.core.model import Job", "errors may not import core"),
        ("run/engine.py", "def f():\n    import asyncssh", "asyncssh is imported only in node/ssh*.py"),
        ("node/session.py", "from asyncssh import connect", "asyncssh is imported only in node/ssh*.py"),
        ("node/local.py", "import_module('asyncssh')", "asyncssh is imported only in node/ssh*.py"),
        ("run/control.py", "import filelock", "filelock is imported only in store/*.py"),
        ("cli/main.py", "import rich.console", "rich is imported only in show/*.py"),
        ("run/demo.py", "import typer", "typer is imported only in cli/*.py"),
        ("core/text.py", "import jinja2", "jinja2 is imported only in core/template.py"),
        ("core/entries.py", "import yaml", "yaml is imported only in core/yamltext.py"),
        ("node/ssh.py", "connect(known_hosts=None)", "known_hosts=None accepts any host key"),
        ("node/ssh.py", "options = {'known_hosts': None}", "known_hosts=None accepts any host key"),
        ("attic/old.py", "", "'attic' is not a room of the house"),
    ],
)
def test_a_fault_is_named_with_its_file(tmp_path: Path, file: str, text: str, says: str) -> None:
    package = package_with(tmp_path, file, text)
    result = check(package)
    assert result.returncode == 1
    line = result.stdout.strip()
    assert line.startswith(f"{package / file}:")
    assert says in line


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cli/main.py", "import typer\nfrom pegasus_py.errors import ExitCode"),
        ("run/engine.py", "from pegasus_py.core import model\nimport pegasus_py.node.shell"),
        ("node/ssh.py", "def f():\n    import asyncssh\n    asyncssh.connect(known_hosts=keys)"),
        ("node/sshconfig.py", "import asyncssh.config"),
        ("node/demoserver.py", "import asyncssh"),
        ("core/entries.py", "from .model import Task\nfrom pegasus_py import __version__"),
        ("__init__.py", "__version__ = '1'"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, file: str, text: str) -> None:
    result = check(package_with(tmp_path, file, text))
    assert (result.returncode, result.stdout) == (0, "")


def test_an_empty_directory_is_no_success(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.returncode == 2
    assert str(tmp_path) in result.stderr
