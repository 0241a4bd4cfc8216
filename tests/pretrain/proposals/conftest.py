"""Isolate the tests from the user's cache."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
