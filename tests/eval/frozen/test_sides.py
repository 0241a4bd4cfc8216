import pytest
from ccop_eval.frozen.sides import AGAINST, OWN, resolve_sides
from ccop_eval.settings import KnnSettings

from ccop_hub.errors import UserError


def sides(weights, against, tmp_path):
    return resolve_sides(
        KnnSettings(weights=str(weights), against=against and str(against), data=tmp_path, out=tmp_path)
    )


def test_random_side_takes_the_other_sides_architecture(tiny_weights, tmp_path):
    for pair in ((tiny_weights, "random"), ("random", tiny_weights)):
        found = sides(*pair, tmp_path)
        assert [found[side].arch for side in (OWN, AGAINST)] == ["resnet18", "resnet18"]
        assert [found[side].name == "random" for side in (OWN, AGAINST)] == [side == "random" for side in pair]
    with pytest.raises(UserError, match="architecture"):
        sides("random", None, tmp_path)


def test_run_of_one_has_one_side(tiny_weights, tmp_path):
    assert list(sides(tiny_weights, None, tmp_path)) == [OWN]
