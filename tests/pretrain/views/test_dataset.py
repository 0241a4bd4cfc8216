import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from ccop_pretrain.settings import ReadingSettings, ViewSettings
from ccop_pretrain.views.dataset import RunSampler, ViewDataset, collate
from ccop_pretrain.views.listing import ImageListing
from PIL import Image
from torch.utils.data import DataLoader

from ccop_hub.errors import UserError

SETTINGS = ViewSettings(image_size=32)


def loader(listing, workers, steps=6, start=0):
    sampler = RunSampler(len(listing.paths), 4, steps, seed=3, start=start)
    return DataLoader(
        ViewDataset(listing, SETTINGS, 3),
        batch_size=4,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
    )


def same(first, second):
    return (
        torch.equal(first.query_images, second.query_images)
        and torch.equal(first.key_images, second.key_images)
        and all(map(torch.equal, first.query_boxes, second.query_boxes))
        and all(map(torch.equal, first.key_boxes, second.key_boxes))
    )


def test_batches_do_not_depend_on_workers_nor_on_where_the_run_starts(scenes, scene_proposals):
    listing = ImageListing.open(scenes, scene_proposals)
    whole = list(loader(listing, 0))
    assert len(whole) == 6
    assert all(map(same, whole, loader(listing, 2)))
    later = list(loader(listing, 0, start=4))
    assert len(later) == 2
    assert all(map(same, whole[4:], later))
    assert not same(whole[0], whole[3])


def test_a_batch_holds_matching_boxes_inside_its_views(scenes, scene_proposals):
    listing = ImageListing.open(scenes, scene_proposals)
    batch = next(iter(loader(listing, 0)))
    assert batch.query_images.shape == batch.key_images.shape == (4, 3, 32, 32)
    assert batch.query_images.dtype == torch.uint8
    assert [len(boxes) for boxes in batch.query_boxes] == [len(boxes) for boxes in batch.key_boxes]
    boxes = torch.cat(batch.query_boxes + batch.key_boxes)
    assert len(boxes) > 0
    assert boxes.dtype == torch.float32
    assert boxes.min() >= 0
    assert boxes.max() <= 31
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_every_epoch_is_a_permutation_without_its_last_partial_batch():
    places = list(RunSampler(10, 4, steps=6, seed=0))
    assert len(places) == 24
    by_epoch = [[index for epoch, index in places if epoch == wanted] for wanted in range(3)]
    for indices in by_epoch:
        assert len(indices) == len(set(indices)) == 8
    assert by_epoch[0] != by_epoch[1]
    assert list(RunSampler(10, 4, steps=6, seed=1)) != places


def test_processes_share_out_the_batches_of_one_process():
    alone = list(RunSampler(10, 4, steps=5, seed=0))
    shares = [list(RunSampler(10, 4, 5, 0, process=rank, processes=2)) for rank in range(2)]
    dealt = [place for step in range(5) for share in shares for place in share[2 * step : 2 * step + 2]]
    assert dealt == alone
    assert len(RunSampler(10, 4, 5, 0, 0, 2)) == 10


def test_an_unreadable_image_gives_its_place_to_the_next_and_changes_no_other_draw(scenes, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(scenes, folder)
    name = sorted(path.name for path in folder.iterdir())[5]
    (folder / name).write_bytes((folder / name).read_bytes()[:200])
    whole = ViewDataset(ImageListing.open(scenes, None), SETTINGS, 0)
    damaged = ViewDataset(ImageListing.open(folder, None), SETTINGS, 0)
    for index in (4, 6):
        assert torch.equal(whole[0, index].query_image, damaged[0, index].query_image)
    replaced = damaged[0, 5]
    assert [index for index, _ in replaced.skipped] == [5]
    assert not torch.equal(replaced.query_image, whole[0, 5].query_image)
    # It shows image 6, cropped with the random draws of position 5.
    views = whole.views(0, 5, 6, (96, 72))
    assert views.query.crop == damaged.views(0, 5, 6, (96, 72)).query.crop != whole.views(0, 6, 6, (96, 72)).query.crop
    batch = collate([damaged[0, 4], replaced])
    assert batch.skipped == replaced.skipped


def test_an_image_that_was_skipped_by_the_proposals_is_skipped_here(scenes, scene_proposals):
    listing = ImageListing.open(scenes, scene_proposals)
    listing.proposals.skipped["03.png"] = "was cut short then"
    assert ViewDataset(listing, SETTINGS, 0)[0, 3].skipped == [(3, "was cut short then")]


def test_wrong_input_is_named(scenes, scene_proposals, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        ImageListing.open(tmp_path / "nowhere", None)
    grown = tmp_path / "grown"
    shutil.copytree(scenes, grown)
    shutil.copy(grown / "00.png", grown / "new.png")
    with pytest.raises(UserError, match=r"new\.png"):
        ImageListing.open(grown, scene_proposals)
    resized = tmp_path / "resized"
    resized.mkdir()
    for path in scenes.iterdir():
        Image.new("RGB", (40, 40)).save(resized / path.name)
    with pytest.raises(UserError, match="another size"):
        ImageListing.open(resized, scene_proposals)
    for path in resized.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 14 images"):
        ImageListing.open(resized, None)


def test_max_boxes_takes_the_first(scenes, scene_proposals):
    listing = ImageListing.open(scenes, scene_proposals)
    few = ViewDataset(listing, ViewSettings(max_boxes=2), 0).boxes(1)
    np.testing.assert_array_equal(few, listing.boxes(1)[:2])
    assert len(listing.boxes(1)) > 2


def test_every_kind_of_source_gives_the_same_views(scenes, scene_proposals, tmp_path):
    names = sorted(path.name for path in scenes.iterdir())
    (tmp_path / "list.txt").write_text("\n".join(str(scenes / name) for name in reversed(names)))
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name in reversed(names):
            archive.add(scenes / name, name)
    entries = [{"id": index, "file_name": name} for index, name in enumerate(names)]
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    (tmp_path / "set" / "train2017").symlink_to(scenes)
    (tmp_path / "set" / "annotations" / "instances_train2017.json").write_text(json.dumps({"images": entries}))
    whole = list(loader(ImageListing.open(scenes, None), 0))
    for images, workers in ((tmp_path / "list.txt", 0), (tmp_path / "shard.tar", 2), (tmp_path / "set", 0)):
        listing = ImageListing.open(images, None)
        assert all(map(same, whole, loader(listing, workers)))
        # A resumed run starts reading in the middle.
        assert all(map(same, whole[4:], loader(listing, 0, start=4)))
    boxes = [ImageListing.open(path, scene_proposals).boxes(3) for path in (scenes, tmp_path / "set")]
    np.testing.assert_array_equal(*boxes)


def test_only_listed_images_count_as_left_out(scenes, scene_proposals):
    listing = ImageListing.open(scenes, scene_proposals)
    listing.proposals.skipped |= {"03.png": "was cut short then", "elsewhere.png": "not listed here"}
    assert list(listing.left_out().reasons()) == ["03.png"]


def test_larger_images_than_the_limit_are_passed_over(scenes):
    with pytest.raises(UserError, match="none of the 14 images"):
        ImageListing.open(scenes, None, ReadingSettings(max_pixels=96 * 72 - 1))
    assert ImageListing.open(scenes, None, ReadingSettings(max_pixels=96 * 72)).read(0).size == (96, 72)


def test_an_image_of_one_row_has_views(tmp_path):
    for name in ("0.png", "1.png"):
        Image.new("RGB", (1, 300), (200, 10, 10)).save(tmp_path / name)
    pair = ViewDataset(ImageListing.open(tmp_path, None), SETTINGS, 0)[0, 0]
    assert pair.query_image.shape == pair.key_image.shape == (3, 32, 32)
    assert len(pair.query_boxes) == 0
