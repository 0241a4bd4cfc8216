from __future__ import annotations

from pathlib import Path

import pytest

from ccop_hub.sources.cache import cache_root, downloads_folder


def test_one_root_for_everything_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CCOP_CACHE", "CCOP_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_root() == Path("/home/someone/.cache/ccop-hub")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert (cache_root(), downloads_folder()) == (Path("/xdg/ccop-hub"), Path("/xdg/ccop-hub/downloads"))
    monkeypatch.setenv("CCOP_CACHE", "/kept")
    assert (cache_root(), downloads_folder()) == (Path("/kept"), Path("/kept/downloads"))
    monkeypatch.setenv("CCOP_HUB_CACHE", "~/weights")
    assert (cache_root(), downloads_folder()) == (Path("/kept"), Path("/home/someone/weights"))
