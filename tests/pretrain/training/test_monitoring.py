import dataclasses

import pytest
from ccop_pretrain.training.monitoring import CollapseAlarm, advice, expected_boxes
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.views.dataset import ViewDataset
from ccop_pretrain.views.listing import ImageListing


def reports(alarm, image, box, steps):
    return [warning for step in steps for warning in alarm.look(figures(image, box), step)]


def figures(image, box):
    return {"image_embedding_std": image, "box_embedding_std": box, "loss": 1.0}


def test_a_sustained_collapse_behind_the_warmup_is_told_once_and_by_name(caplog):
    alarm = CollapseAlarm(dim=100, warmup_steps=3)
    assert reports(alarm, 0.09, 0.005, range(1, 8)) == []
    (told,) = reports(alarm, 0.09, 0.005, range(8, 20))
    assert told.startswith("step 8: the box embeddings have collapsed: their standard deviation is 0.005, 5.0%")
    assert told in caplog.text
    assert reports(alarm, 0.09, 0.05, [20]) == []
    (again,) = reports(alarm, 0.09, 0.005, range(21, 30))
    assert again.startswith("step 25: the box")


def test_one_good_report_breaks_the_row():
    alarm = CollapseAlarm(dim=100, warmup_steps=0)
    for start in (1, 6):
        assert reports(alarm, 0.001, 0.09, range(start, start + 4)) == []
        alarm.look(figures(0.05, 0.09), start + 4)
    alarm.look({"loss": 1.0}, 11)
    assert [warning.split()[3] for warning in reports(alarm, 0.001, 0.09, range(12, 20))] == ["image"]


@pytest.fixture
def settings(tiny_run):
    return tiny_run(batch_size=10, warmup_epochs=2.0, steps=100, image_queue=100, box_queue=400)


def test_queues_that_fit_lead_to_no_advice(settings):
    assert advice(settings, Schedule.of(settings, 100), 100, 4.0) == []


def test_a_queue_longer_than_the_data_set(settings):
    longer = dataclasses.replace(settings, image_queue=101, warmup_epochs=5.0)
    (told,) = advice(longer, Schedule.of(longer, 100), 100, 4.0)
    assert "the image queue of 101 keys is longer than an epoch's 100" in told
    assert "--image-queue 100 or less" in told


def test_a_warmup_that_is_over_before_the_queue_is_filled_twice(settings):
    short = dataclasses.replace(settings, warmup_epochs=1.5)
    told = advice(short, Schedule.of(short, 100), 100, 4.0)
    assert [warning.split()[1] for warning in told] == ["image", "box"]
    assert "takes 10 steps to fill" in told[0]
    assert "give --warmup-epochs 2, or --image-queue 75 or less" in told[0]
    # What it says is enough.
    followed = dataclasses.replace(short, image_queue=75, box_queue=300)
    assert advice(followed, Schedule.of(followed, 100), 100, 4.0) == []
    # Half of this run is no warm-up of that length.
    brief = dataclasses.replace(settings, steps=30, weight_box=0.0)
    (told,) = advice(brief, Schedule.of(brief, 100), 100, 4.0)
    assert "give a run of 40 steps with --warmup-epochs 2" in told


def test_parts_that_are_off_have_no_queue(settings):
    off = dataclasses.replace(settings, warmup_epochs=0.1, objective="mocov2")
    assert [warning.split()[1] for warning in advice(off, Schedule.of(off, 100), 100, 0.0)] == ["image"]
    off = dataclasses.replace(settings, warmup_epochs=0.1, weight_image=0.0, weight_box=0.0)
    assert advice(off, Schedule.of(off, 100), 100, 4.0) == []


def test_expected_boxes_are_those_of_the_views(tiny_run):
    run = tiny_run()
    listing = ImageListing.open(run.images, run.proposals)
    views = ViewDataset(listing, run, run.seed)
    counted = [len(views[0, index].query_boxes) for index in range(len(views))]
    assert expected_boxes(listing, run) == pytest.approx(sum(counted) / len(counted))
    assert expected_boxes(listing, run) > 0
    assert expected_boxes(ImageListing.open(run.images, None), run) == 0
