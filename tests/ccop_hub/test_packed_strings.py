import pickle

import pytest

from ccop_hub.packed_strings import PackedStrings

STRINGS = sorted(["", "a", "a/b.jpg", "é.png", "日本.jpg", "caf\udce9.png", *map(str, range(10_000))])


def test_it_is_the_sequence_it_was_made_of() -> None:
    packed = PackedStrings(STRINGS)
    assert len(packed) == len(STRINGS)
    assert list(packed) == STRINGS
    assert packed == STRINGS
    assert packed == PackedStrings(iter(STRINGS))
    assert packed != STRINGS[:-1]
    assert packed != PackedStrings([*STRINGS[:-1], "z"])
    assert [packed[index] for index in (0, 4095, 4096, -1)] == [STRINGS[index] for index in (0, 4095, 4096, -1)]
    assert packed[2:9:3] == STRINGS[2:9:3]
    assert pickle.loads(pickle.dumps(packed)) == packed
    for outside in (len(STRINGS), -len(STRINGS) - 1):
        with pytest.raises(IndexError):
            packed[outside]


def test_equal_bytes_cut_elsewhere_are_not_equal() -> None:
    assert PackedStrings(["ab", "c"]) != PackedStrings(["a", "bc"])


def test_find_tells_the_place() -> None:
    packed = PackedStrings(STRINGS)
    assert [packed.find(STRINGS[place]) for place in (0, 1, 77, len(STRINGS) - 1)] == [0, 1, 77, len(STRINGS) - 1]
    assert packed.find("a/b") is None
    assert packed.find("zzz") is None
    assert PackedStrings([]).find("a") is None
