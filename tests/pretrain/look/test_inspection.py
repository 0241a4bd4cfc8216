import csv

import numpy as np
import pytest
from ccop_pretrain.look.inspection import collect_samples, run, show, summarise, write_sheets
from ccop_pretrain.settings import InspectSettings
from ccop_pretrain.views.dataset import ViewDataset
from ccop_pretrain.views.listing import ImageListing
from PIL import Image


@pytest.fixture
def settings(scenes, scene_proposals, tmp_path):
    return InspectSettings(
        images=scenes, proposals=scene_proposals, out=tmp_path / "sheets", count=2, draws=30, image_size=48
    )


def colours(path):
    return np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)


def test_sheets_and_table_are_written(settings, capsys):
    inspection = run(settings)
    names = {path.name for path in settings.out.iterdir()}
    assert names == {"proposals.png", "views.png", "jitters.png", "augmentation.png", "summary.csv"}
    widths = {Image.open(path).width for path in settings.out.glob("*.png")}
    assert len(widths) == 1
    green = (colours(settings.out / "jitters.png") == (0x2E, 0xCC, 0x40)).all(1)
    assert green.sum() > 50
    assert capsys.readouterr().out == ""
    show(inspection, settings)
    printed = capsys.readouterr().out
    with (settings.out / "summary.csv").open() as file:
        rows = dict(csv.reader(file))
    assert rows.pop("measure") == "value"
    assert rows == inspection.measures
    assert rows["images with proposals"] == "14"
    assert "draws without a box" in printed
    places = f"--images {settings.images} --proposals {settings.proposals}"
    assert printed.splitlines()[-1] == f"next: ccop-pretrain run {places} --out RUN"


def test_samples_are_what_the_run_sees(settings):
    listing = ImageListing.open(settings.images, settings.proposals)
    dataset = ViewDataset(listing, settings, settings.seed)
    for sample in collect_samples(dataset, 3):
        pair = dataset[sample.epoch, listing.paths.index(sample.name)]
        np.testing.assert_array_equal(pair.query_image.permute(1, 2, 0).numpy(), sample.query)
        np.testing.assert_array_equal(pair.key_boxes.numpy(), sample.views.key.boxes)


def test_the_counts_are_those_of_the_runs_draws(settings):
    listing = ImageListing.open(settings.images, settings.proposals)
    dataset = ViewDataset(listing, settings, settings.seed)
    rows = dict(summarise(listing, settings, 28))
    counts = [len(dataset[epoch, index].query_boxes) for epoch in range(2) for index in range(14)]
    assert rows["boxes a view, mean"] == f"{np.mean(counts):.1f}"
    assert rows["draws without a box"] == f"{np.mean(np.array(counts) == 0):.1%}"


def test_without_proposals_there_are_views_and_augmentation(settings, tmp_path):
    written = write_sheets(ImageListing.open(settings.images, None), settings, tmp_path / "plain", 2)
    assert {path.name for path in written} == {"views.png", "augmentation.png"}
    assert all(path.is_file() for path in written)
