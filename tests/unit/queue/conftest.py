from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.queue.world import World, world


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[World]:
    """An open queue with its scheduler running."""
    async with world(tmp_path / "queue.db") as made:
        yield made
