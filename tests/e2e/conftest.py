"""What every end-to-end test has: four real SSH servers and an empty current directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sshd import SshFarm


@pytest.fixture
def here(workdir: Path, farm: SshFarm, ssh_home: Path) -> Path:
    """The current directory; `pegasus` started in it reaches node-1 to node-4."""
    return workdir
