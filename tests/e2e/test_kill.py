"""kill -9 at random moments under load: every message that got its 250 arrives (design section 7).

`python -m bench.stress.kill` does more of it.
"""

from pathlib import Path

import pytest

from bench.stress import kill

KILLS = 50
SEED = 20261122


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_what_got_its_250_arrives_through_fifty_deaths(tmp_path: Path) -> None:
    found = await kill.run(KILLS, SEED, tmp_path)
    assert found["deaths"] == KILLS
    assert found["kept"] > KILLS
