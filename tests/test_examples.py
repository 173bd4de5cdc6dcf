"""Every example runs as its README says, on real SSH nodes, and leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parent.parent / "examples"
NODES = ("node-1", "node-2", "node-3", "node-4")


@dataclass(frozen=True)
class Expected:
    """What a run prints: `lines` in any order, each so often; `jobs` is the number of jobs it consumes."""

    mode: tuple[str, ...]
    jobs: int
    lines: dict[str, int]


EXPECTED = {
    "simple": Expected(("q",), 4, {f"batch size {size}": 1 for size in (8, 16, 32, 64)}),
    "broadcast-setup": Expected(("b", "-e"), 4, {f"name = {node}": 1 for node in NODES}),
    "host-parameters": Expected(("q",), 4, {}),
    "command-sweep": Expected(
        ("q",),
        12,
        {
            f"{command} {model} with rate {rate}": 1
            for command in ("train", "test")
            for model in ("resnet50", "vit")
            for rate in ("0.10", "0.010", "1e-4")
        },
    ),
    "hosts-and-commands": Expected(
        ("q",),
        9,
        {
            f"count {number} of {low} to {high}": 1
            for low in (1, 2)
            for high in (3, 4)
            for number in range(low, high + 1)
        },
    ),
    "templating": Expected(
        ("q",),
        9,
        {
            "org/resnet50 goes to org--resnet50.pt": 1,
            "org/large model goes to org--large_model.pt": 1,
            "it's $HOME goes to it's_$HOME.pt": 1,
            **{f"fold {fold} of 3, seed {seed + fold}": 1 for fold in (1, 2, 3) for seed in (100, 200)},
            "0.10 is fast": 1,
            "1e-4 is slow": 1,
            "{{.Names}}": 1,
            "{{.Image}}": 1,
        },
    ),
}


def pegasus() -> list[str]:
    """The installed command, or the same entry point where only the source tree is on the path."""
    script = Path(sys.executable).with_name("pegasus")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "import sys; from pegasus_py.cli.main import main; sys.exit(main())"]


def copied(name: str, to: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES / name, to / name))


def entries(file: Path) -> list[object]:
    return list(yaml.load(file.read_text(), Loader=yaml.BaseLoader) or [])


def test_each_example_is_listed_and_tested() -> None:
    directories = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert directories == set(EXPECTED)
    index = (EXAMPLES / "README.md").read_text()
    for name, expected in EXPECTED.items():
        command = " ".join(("pegasus", *expected.mode))
        assert f"[{name}]({name}/)" in index
        assert f"    {command}\n" in (EXAMPLES / name / "README.md").read_text()


@pytest.mark.usefixtures("farm")
@pytest.mark.parametrize("name", EXPECTED)
def test_example_runs_as_written(name: str, tmp_path: Path, ssh_home: Path) -> None:
    directory = copied(name, tmp_path)
    expected = EXPECTED[name]

    run = subprocess.run(
        [*pegasus(), *expected.mode], cwd=directory, capture_output=True, text=True, timeout=100
    )

    assert run.returncode == 0, run.stdout + run.stderr
    printed = Counter(
        {text: sum(line.endswith(text) for line in run.stdout.splitlines()) for text in expected.lines}
    )
    assert printed == Counter(expected.lines), run.stdout
    assert entries(directory / "queue.yaml") == []
    assert len(entries(directory / "consumed.yaml")) == expected.jobs
    assert not list(Path("/tmp").glob("pegasus-example-node-*"))


@pytest.mark.usefixtures("farm")
def test_each_job_of_host_parameters_sees_its_own_gpu(tmp_path: Path, ssh_home: Path) -> None:
    directory = copied("host-parameters", tmp_path)

    run = subprocess.run([*pegasus(), "q"], cwd=directory, capture_output=True, text=True, timeout=100)

    assert run.returncode == 0, run.stdout + run.stderr
    for size in (8, 16, 32, 64):
        [line] = [line for line in run.stdout.splitlines() if f"batch size {size} on" in line]
        assert line.endswith((f"batch size {size} on GPU 0", f"batch size {size} on GPU 1"))
