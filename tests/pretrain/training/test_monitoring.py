import dataclasses

import pytest
from ccop_pretrain.training.monitoring import CollapseAlarm, ShortcutAlarm, advice, expected_boxes
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.views.dataset import ViewDataset
from ccop_pretrain.views.listing import ImageListing


def reports(alarm, image, box, steps):
    return [warning for step in steps for warning in alarm.look(figures(image, box), step)]


def figures(image, box):
    return {"image_embedding_std": image, "box_embedding_std": box, "loss": 1.0}


def test_a_sustained_collapse_behind_the_warmup_is_told_once_and_by_name(caplog, tiny_run):
    alarm = CollapseAlarm(tiny_run(embedding_dim=100, momentum=0.99, lr=0.7), warmup_steps=3)
    assert reports(alarm, 0.09, 0.005, range(1, 8)) == []
    (told,) = reports(alarm, 0.09, 0.005, range(8, 20))
    assert told.startswith("step 8: the box embeddings have collapsed: their standard deviation is 0.005, 5.0%")
    assert told in caplog.text
    assert "--momentum 0.999 (now 0.99), a lower --lr (now 0.7)" in told
    assert reports(alarm, 0.09, 0.05, [20]) == []
    (again,) = reports(alarm, 0.09, 0.005, range(21, 30))
    assert again.startswith("step 25: the box")


def test_one_good_report_breaks_the_row(tiny_run):
    alarm = CollapseAlarm(tiny_run(embedding_dim=100), warmup_steps=0)
    for start in (1, 6):
        assert reports(alarm, 0.001, 0.09, range(start, start + 4)) == []
        alarm.look(figures(0.05, 0.09), start + 4)
    alarm.look({"loss": 1.0}, 11)
    (told,) = reports(alarm, 0.001, 0.09, range(12, 20))
    assert told.split()[3] == "image"
    assert "--momentum" not in told


def compared(queue, batch, filled=1.0, boxes=4.0):
    """A report with healthy box embeddings."""
    return {
        **{"image_accuracy": queue, "image_batch_accuracy": batch, "image_queue_filled": filled},
        **{"box_accuracy": 0.3, "box_batch_accuracy": 0.9, "box_queue_filled": 1.0, "boxes_per_image": boxes},
    }


def test_an_accuracy_that_only_the_queue_grants_is_told_once_with_its_remedies(caplog, tiny_run):
    alarm = ShortcutAlarm(tiny_run(momentum=0.99, lr=0.7), warmup_steps=3)
    told = [warning for step in range(1, 30) for warning in alarm.look(compared(0.25, 0.036), step)]
    assert len(told) == 1
    assert told[0].startswith("step 8: the image accuracy is 0.25 against the queue and 0.036 against")
    for remedy in ("--momentum 0.999 (now 0.99)", "--negatives batch", "--split-bn", "--lr (now 0.7)"):
        assert remedy in told[0]
    assert told[0] in caplog.text


@pytest.mark.parametrize(
    ("report", "changed"),
    [
        (compared(0.5, 0.45), {}),  # within the noise
        (compared(0.5, 0.9), {}),  # a batch is easier than a queue
        (compared(0.9, 0.1, filled=0.99), {}),  # random keys are easy
        (compared(0.9, 0.1), {"image_queue": 3}),  # and so is a queue smaller than a batch
        ({"loss": 1.0}, {}),
    ],
)
def test_a_sound_run_hears_nothing_of_shortcuts(report, changed, tiny_run):
    alarm = ShortcutAlarm(tiny_run(**changed), warmup_steps=0)
    assert [warning for step in range(1, 30) for warning in alarm.look(report, step)] == []


def test_the_box_queue_is_judged_by_the_boxes_of_a_batch(tiny_run):
    report = {"box_accuracy": 0.9, "box_batch_accuracy": 0.1, "box_queue_filled": 1.0}
    for boxes, times in ((8.0, 1), (8.1, 0)):  # 4 images a step and a queue of 32
        alarm = ShortcutAlarm(tiny_run(), warmup_steps=0)
        told = [each for step in range(1, 9) for each in alarm.look({**report, "boxes_per_image": boxes}, step)]
        assert len(told) == times


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
    # Following the advice is enough.
    followed = dataclasses.replace(short, image_queue=75, box_queue=300)
    assert advice(followed, Schedule.of(followed, 100), 100, 4.0) == []
    # Half of this run is too short for such a warm-up, so a longer run is suggested.
    brief = dataclasses.replace(settings, steps=30, weight_box=0.0)
    (told,) = advice(brief, Schedule.of(brief, 100), 100, 4.0)
    assert "give a run of 40 steps with --warmup-epochs 2" in told


def test_adamw_at_a_learning_rate_of_sgd(settings):
    adamw = dataclasses.replace(settings, optimizer="adamw", lr=0.3)
    (told,) = advice(adamw, Schedule.of(adamw, 100), 100, 4.0)  # 0.3 * 10 / 256 = 0.0117
    assert "peak learning rate of 0.012" in told
    lower = dataclasses.replace(adamw, lr=0.2)
    assert advice(lower, Schedule.of(lower, 100), 100, 4.0) == []


def test_parts_that_are_off_have_no_queue(settings):
    off = dataclasses.replace(settings, warmup_epochs=0.1, objective="mocov2")
    assert [warning.split()[1] for warning in advice(off, Schedule.of(off, 100), 100, 0.0)] == ["image"]
    off = dataclasses.replace(settings, warmup_epochs=0.1, negatives="batch")
    assert advice(off, Schedule.of(off, 100), 100, 4.0) == []
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
