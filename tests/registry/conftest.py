"""One registry process for a module; every test has a repository of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registry.serving import Serving


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = Serving(tmp_path_factory.mktemp("registry") / "store")
    yield serving
    assert serving.stop() == 0
    assert serving.errors == ""  # no traceback in its log


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository's name: the test's own."""
    words = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return "tests/" + "-".join(filter(None, words.split("-")))[:200]
