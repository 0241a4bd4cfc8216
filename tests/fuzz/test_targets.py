"""Small-scale fuzzing on every change: hypothesis corrupts each target's valid files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .targets import CORPUS, TARGETS, inputs


@pytest.mark.parametrize("name", TARGETS)
def test_sound_files_are_read_and_the_corpus_is_refused_or_read(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    target.prepare(tmp_path)
    for number, seed in enumerate(target.seeds()):
        if (name, number) not in INVALID:
            path = tmp_path / target.name
            path.write_bytes(seed)
            target.read(path)
    for data in inputs(name):
        target.try_bytes(data, tmp_path)


INVALID = {("coco", 2), ("settings", 1)}
"""(target, number) of the seeds that a reader refuses: NaN, and a document that ends early."""


def test_every_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_in_one_line_or_read(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    target = TARGETS[name]
    damaged = bytearray(data.draw(st.sampled_from(inputs(name))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    folder = tmp_path_factory.mktemp("fuzz")
    target.prepare(folder)
    target.try_bytes(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]), folder)
