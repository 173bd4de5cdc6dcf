"""The quiz of the Rust original's README: how many commands?"""

from __future__ import annotations

from pathlib import Path

from tests.e2e.program import pegasus, records, write

HOSTS = """\
- hostname:
    - node-1
    - node-2
  laziness:
    - 0.01
- hostname:
    - node-3
  laziness:
    - 0.02
"""

QUEUE = """\
- echo hi from {{ hostname }}
- command:
    - for i in $(seq {{ low }} {{ high }}); do echo $i; sleep {{ laziness }}; done
    - echo bye from {{ hostname }}
  low:
    - 1
    - 2
  high:
    - 3
    - 4
"""


def test_the_answer_is_nine(here: Path) -> None:
    write(here, HOSTS, QUEUE)

    run = pegasus("q")

    assert run.code == 0, run
    assert len(records(here / "consumed.yaml")) == 1 + 2 * 2 * 2
    assert run.said.count("1") == 2 and run.said.count("4") == 2, run
    assert sum(line.startswith("bye from node-") for line in run.said) == 4, run
    assert "9 succeeded, 0 failed" in run.err
