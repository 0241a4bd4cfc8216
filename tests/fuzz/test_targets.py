"""Small-scale fuzzing on every change: hypothesis corrupts each target's valid files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_are_read(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        path = tmp_path / target.name
        path.write_bytes(seed)
        if name != "proposals":  # a manifest without its shards is refused
            target.read(path)
        target.try_bytes(seed, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_in_one_line_or_read(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    target = TARGETS[name]
    damaged = bytearray(data.draw(st.sampled_from(target.seeds())))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    target.try_bytes(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]), tmp_path_factory.mktemp("fuzz"))
