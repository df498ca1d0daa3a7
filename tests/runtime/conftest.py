from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import bundles

SITUATIONS = ("root", "subuid", "single")


@pytest.fixture(params=SITUATIONS)
def situation(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "single" and os.geteuid() != 0:
        pytest.skip(f"the situation {name} needs root to be made")
    if not os.path.exists(bundles.BUSYBOX):
        pytest.skip("no static busybox on this host")
    return name


@pytest.fixture
def box(situation: str) -> Iterator[bundles.Box]:
    with bundles.box(situation) as made:
        yield made


@pytest.fixture
def inside(situation: str) -> Callable[[Callable[[], Any]], Any]:
    return lambda work: bundles.inside(situation, work)
