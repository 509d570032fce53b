"""What several contract suites run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.drivers import LoopDriver
from tests.contract.transport_rig import Rig, real_rig, simulated_rig


@pytest.fixture(params=["sim", "real"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "sim":
        made = simulated_rig()
        yield made
        made.close()
        return
    driver = LoopDriver()
    made = real_rig(driver)
    yield made
    made.close()
    driver.close()
