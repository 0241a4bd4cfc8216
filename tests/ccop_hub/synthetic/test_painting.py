import numpy as np
import pytest

from ccop_hub.synthetic.painting import NO_OBJECT, Scene, paint_scene
from ccop_hub.synthetic.shapes import SHAPES

SIZE = 160


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [paint_scene(np.random.default_rng(seed), SIZE) for seed in range(24)]


def test_scenes_are_pictures_of_several_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.dtype == np.uint8
        assert scene.image.shape == (*scene.instances.shape, 3)
        assert max(scene.image.shape) == SIZE
        assert scene.image.std() > 8
        assert set(scene.shapes) <= set(SHAPES)
        visible = np.unique(scene.instances)
        assert visible.tolist() == [NO_OBJECT, *range(len(scene.shapes))]
    assert np.mean([len(scene.shapes) for scene in scenes]) > 3
    assert len({scene.image.shape for scene in scenes}) > 2


def test_every_class_appears(scenes: list[Scene]) -> None:
    assert {shape for scene in scenes for shape in scene.shapes} == set(SHAPES)


def test_objects_stand_in_each_others_way(scenes: list[Scene]) -> None:
    """Many masks touch another: objects overlap, and each mask is the visible part."""
    touching = 0
    for scene in scenes:
        left, right = scene.instances[:, :-1], scene.instances[:, 1:]
        touching += bool(((left != right) & (left != NO_OBJECT) & (right != NO_OBJECT)).any())
    assert touching > len(scenes) / 2


def test_no_object_is_nearly_hidden(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert np.bincount(scene.instances[scene.instances != NO_OBJECT]).min() >= 120


def test_objects_differ_from_what_is_around_them(scenes: list[Scene]) -> None:
    """An invisible object would be a wrong label."""
    contrasts = []
    for scene in scenes:
        for number in range(len(scene.shapes)):
            inside = scene.image[scene.instances == number].astype(float)
            outside = scene.image[scene.instances == NO_OBJECT].astype(float)
            contrasts.append(np.abs(inside.mean(axis=0) - outside.mean(axis=0)).max() + inside.std(axis=0).max())
    assert np.percentile(contrasts, 2) > 20


def test_colour_tells_nothing_of_the_class(scenes: list[Scene]) -> None:
    """Mean colours vary as much within a class as overall: colour is independent of shape."""
    colours: dict[str, list[np.ndarray]] = {shape: [] for shape in SHAPES}
    for seed in range(40):
        scene = paint_scene(np.random.default_rng(1000 + seed), 96)
        for number, shape in enumerate(scene.shapes):
            colours[shape].append(scene.image[scene.instances == number].mean(axis=0))
    everything = np.concatenate(list(colours.values()))
    within = np.mean([np.var(members, axis=0, ddof=1).mean() for members in colours.values() if len(members) > 5])
    assert within > 0.8 * everything.var(axis=0).mean()


def test_same_draws_same_scene(scenes: list[Scene]) -> None:
    again = paint_scene(np.random.default_rng(3), SIZE)
    np.testing.assert_array_equal(again.image, scenes[3].image)
    np.testing.assert_array_equal(again.instances, scenes[3].instances)
