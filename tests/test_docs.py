"""What the documentation says of the program is so: commands, options, exit codes, keys, links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer.core
import typer.main
import yaml

from pegasus_py.cli.app import app
from pegasus_py.core.model import JobOptions
from pegasus_py.errors import ExitCode

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
OPTIONS = (ROOT / "docs" / "options.md").read_text()


def commands() -> dict[str, set[str]]:
    """Each command's name and its long options."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in group.commands.items()
    }


def heading_anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get on the usual Markdown sites."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_quick_start_is_two_commands_in_blocks_of_their_own() -> None:
    readme = (ROOT / "README.md").read_text()
    first_section = readme.split("\n## ")[1]
    assert first_section.startswith("Quick start\n")
    assert re.findall(r"```(\w*)\n(.*?)```", first_section, re.DOTALL) == [
        ("console", "$ sh scripts/demo\n"),
        ("console", "$ sh scripts/test\n"),
    ]


def test_ci_runs_the_commands_of_the_readme() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    assert '(README, first command)" sh scripts/demo\n' in run
    assert '(README, second command)" sh scripts/test\n' in run


def test_every_option_of_every_command_is_documented() -> None:
    for name, options in commands().items():
        for option in options:
            assert re.search(rf"`[^`]*{option}\b", OPTIONS), f"{name} {option} is missing in docs/options.md"


def test_every_documented_option_exists() -> None:
    known = {"--version", "--help"}.union(*commands().values())
    assert set(re.findall(r"--[a-z][a-z-]+", OPTIONS)) <= known


def test_every_documented_command_exists() -> None:
    pages = "\n".join(page.read_text() for page in PAGES)
    used = set(re.findall(r"`pegasus ([a-z]+)|^ {4}pegasus ([a-z]+)", pages, re.MULTILINE))
    assert {first or second for first, second in used} <= set(commands())


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "exit-codes.md").read_text()
    assert re.findall(r"^\| (\d+) \| (\w+) \|", page, re.MULTILINE) == [
        (str(code.value), code.name) for code in ExitCode
    ]


def test_every_option_of_an_entry_is_documented() -> None:
    section = OPTIONS.split("## Options of an entry")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(JobOptions.__struct_fields__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target} does not exist"
        assert not anchor or anchor in heading_anchors(file), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_in_the_pages_is_a_list(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        assert isinstance(yaml.load(block, Loader=yaml.BaseLoader), list), block


@pytest.mark.parametrize(
    "script",
    [".ci/run", *(f"scripts/{name}" for name in ("setup", "lib.sh", "demo", "test", "format", "check"))],
)
def test_scripts_parse(script: str) -> None:
    shell = "bash" if script == ".ci/run" else "sh"
    result = subprocess.run([shell, "-n", ROOT / script], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, "")
