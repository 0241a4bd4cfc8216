import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccop_eval
import numpy as np
import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.common import pictures
from ccop_eval.detection.coco_data import open_coco
from ccop_eval.detection.config import configure
from ccop_eval.detection.data_sources import open_data
from ccop_eval.detection.engine import load_engine
from ccop_eval.results.result import Result
from PIL import Image

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import save_checkpoint

load_engine()

Draw = Callable[..., Path]
ITERATIONS = 40


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("detection")


@pytest.fixture(scope="module")
def finished(work: Path, draw_split: Callable[..., None]) -> Path:
    """A run overfitted to four images, used for both training and scoring."""
    for split in ("train", "val"):
        draw_split(work / "shapes", split, images=4, seed=5)
    network = build_resnet_fpn("resnet18", seed=1)
    facts = {"arch": "resnet18", "objective": "ccop", "parts": ["backbone", "fpn"]}
    save_checkpoint(work / "exported", network.state_dict(), facts)
    assert main(_arguments(work)) == 0
    return work


def _arguments(work: Path, *more: str) -> list[str]:
    paths = ["--weights", str(work / "exported"), "--data", str(work / "shapes"), "--out", str(work / "out")]
    return ["detection", *paths, "--protocol=small-cpu", f"--iterations={ITERATIONS}", "--workers=0", *more]


def test_over_fitting_four_pictures_finds_their_objects(finished: Path) -> None:
    metrics = Result.read(finished / "out").metrics
    assert metrics["bbox/AP50"] > 15
    assert metrics["segm/AP50"] > 15


def test_the_detector_of_a_run_predicts_what_the_run_scored(finished: Path, tmp_path: Path) -> None:
    data = finished / "shapes"
    source = data / "annotations" / "instances_val2017.json"
    done = ccop_eval.predict(finished / "out", source, tmp_path / "out", accelerator="cpu")
    key = {"image_id", "category_id", "score"}
    found, scored = (
        sorted(json.loads(path.read_text()), key=lambda entry: (entry["image_id"], -entry["score"]))
        for path in (
            tmp_path / "out" / "predictions.json",
            finished / "out" / "detectron2" / "inference" / "coco_instances_results.json",
        )
    )
    assert len(found) == len(scored) > 0
    for one, other in zip(found, scored, strict=True):
        assert {name: one[name] for name in key} == pytest.approx({name: other[name] for name in key}, abs=1e-3)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.1)
        assert "segmentation" in one
    listed = json.loads((tmp_path / "out" / "images.json").read_text())
    assert {entry["id"]: entry["name"] for entry in listed["categories"]} == {
        3: "rectangle",
        7: "ellipse",
        90: "triangle",
    }
    assert [entry["file_name"] for entry in listed["images"]] == [f"{number:06d}.png" for number in range(1, 5)]
    assert (done.images, done.counts["detections"], len(done.pictures)) == (4, len(found), 4)


def test_pictures_say_when_nothing_is_above_the_threshold(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []
    drawn = pictures.sheet
    monkeypatch.setattr(pictures, "sheet", lambda rows, *more: captions.append(rows[0][0][1]) or drawn(rows, *more))
    images = finished / "shapes" / "val2017"
    done = ccop_eval.predict(finished / "out", images, tmp_path / "out", threshold=1.0, accelerator="cpu")
    assert done.counts["images without a detection above it"] == 4
    assert all("nothing above 1" in text and "best score" in text for text in captions)
    assert captions[0].startswith("000001.png")


@pytest.mark.parametrize("content", ["MODEL: !!python/object/apply:os.system [true]", "MODEL: 3", "NEW: 1", "- 1"])
def test_a_damaged_configuration_is_one_line(finished: Path, tmp_path: Path, content: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished / "out", run)
    (run / "detectron2" / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml"):
        ccop_eval.predict(run, finished / "shapes" / "val2017", tmp_path / "out")


def test_the_result_says_what_was_measured(finished: Path) -> None:
    result = Result.read(finished / "out")
    data = open_coco(finished / "shapes")
    assert (result.task, result.protocol) == ("detection", f"small-cpu+iterations={ITERATIONS}")
    assert (result.engine.name, result.engine.compiled) == ("detectron2", load_engine().compiled)
    assert (result.weights.arch, result.loaded, result.seed) == ("resnet18", "backbone+fpn", 0)
    assert (result.data.name, result.data.digest, result.data.images) == ("shapes", data.digest, 4)
    assert {
        f"{kind}/{name}" for kind in ("bbox", "segm") for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")
    } == set(result.metrics)
    assert set(result.per_class["bbox/AP"]) == set(result.per_class["segm/AP"]) == set(data.class_names)
    assert len(result.tensors.used) == len(build_resnet_fpn("resnet18", 0).state_dict())
    assert "SyncBN became BN: there is one process" in result.notes
    assert result.settings["iterations"] == ITERATIONS


def test_the_reported_ap_is_pycocotools_ap_of_the_written_predictions(finished: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(finished / "shapes" / "annotations" / "instances_val2017.json")
    found = truth.loadRes(str(finished / "out" / "detectron2" / "inference" / "coco_instances_results.json"))
    metrics = Result.read(finished / "out").metrics
    for kind in ("bbox", "segm"):
        scorer = COCOeval(truth, found, kind)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
        assert metrics[f"{kind}/AP"] == pytest.approx(100 * scorer.stats[0])
        assert metrics[f"{kind}/AP50"] == pytest.approx(100 * scorer.stats[1])


def test_the_curve_ends_with_the_scores(finished: Path) -> None:
    curve = Result.read(finished / "out").curve
    assert [entry["step"] for entry in curve] == [20, 40]
    assert curve[-1]["bbox/AP"] == pytest.approx(Result.read(finished / "out").metrics["bbox/AP"])
    assert curve[-1]["total_loss"] < curve[0]["total_loss"]


def test_the_files_of_a_run(finished: Path) -> None:
    out = finished / "out"
    with Image.open(out / "detections.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] > pixels.shape[0] / 2
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    log = (out / "detectron2" / "log.txt").read_text()
    assert "Average Precision" in log
    assert "total_loss" in log
    assert f"MAX_ITER: {ITERATIONS}" in (out / "detectron2" / "config.yaml").read_text()
    assert f"iterations: {ITERATIONS}" in (out / "settings.yaml").read_text()
    assert list((out / "detectron2").glob("events.out.tfevents.*")), "TensorBoard's file"
    checkpoints = sorted(path.name for path in (out / "detectron2").glob("*.pth"))
    assert checkpoints == ["model_final.pth"], "each takes the place of the one before"


def test_tensorboard_has_losses_and_scores(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "out" / "detectron2"))
    events.Reload()
    assert {"total_loss", "loss_mask", "lr", "bbox/AP", "segm/AP"} <= set(events.Tags()["scalars"])
    assert events.Scalars("bbox/AP")[-1].value == pytest.approx(Result.read(finished / "out").metrics["bbox/AP"])


def test_the_terminal_has_the_table_and_a_line_of_progress_and_no_configuration(
    work: Path, draw_split: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        draw_split(work / "two", split, images=2, seed=5)
    flags = ["--weights=random", "--backbone=resnet18", "--protocol=small-cpu", "--iterations=4", "--workers=0"]
    assert main(["detection", *flags, f"--data={work / 'two'}", f"--out={work / 'quiet'}"]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert len(lines) < 35
    progress = [line for line in lines if line.startswith("iteration ")]
    assert len(progress) == 1
    number = r"[\d.]+"
    assert re.fullmatch(
        rf"iteration +4 of 4  loss {number} \(rpn {number}, class {number}, box {number}, mask {number}\)"
        rf"  {number} it/s  ETA 0:00:00",
        progress[0],
    )
    assert any(line.startswith("note: SyncBN became BN") for line in lines)
    assert any(line.startswith("mask head") and line.endswith("starts at random") for line in lines)


def test_a_finished_run_prints_its_result_and_is_not_overwritten(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "out" / "result.json").read_bytes()
    assert main(_arguments(finished)) == 0
    told = capsys.readouterr().out
    assert "finished: nothing to do" in told
    assert "bbox/AP" in told
    assert main(_arguments(finished, "--resume=false")) == 2
    assert "--no-resume" in capsys.readouterr().err
    assert (finished / "out" / "result.json").read_bytes() == before


def test_the_second_weights_folder_is_looked_at_before_the_first_are_trained(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "against").mkdir()
    (tmp_path / "against" / "result.json").touch()
    (tmp_path / "against" / "settings.yaml").write_text("iterations: 1\n")
    assert main(_arguments(finished, f"--out={tmp_path}", f"--against={finished / 'exported'}")) == 2
    assert f"{tmp_path / 'against'} contains a run with other settings: weights" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["against"]


def test_overwriting_leaves_nothing_of_the_old_run(finished: Path, tmp_path: Path) -> None:
    from ccop_eval.detection.plan import check_output, make_plan, open_output
    from ccop_eval.settings import DetectionSettings

    old = ("detectron2/model_final.pth", "against/result.json", "result.json", "detections.png", "few_images.txt")
    for name in old:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    weights, data = str(finished / "exported"), str(finished / "shapes")
    plan = make_plan(DetectionSettings(weights, data, tmp_path, protocol="small-cpu", overwrite=True))
    check_output(plan)
    open_output(plan)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["detectron2/config.yaml", "detectron2/identity.json", "settings.yaml"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--protocol=coco-2x"], "--protocol coco-2x is not allowed"),
        (["--backbone=resnet50"], "is a resnet18, not a resnet50"),
        (["--iterations=0"], "--iterations 0 is not allowed"),
        (["--batch_size=-1"], "--batch-size -1 is not allowed"),
        (["--data=nowhere"], "no data set at nowhere"),
        (["--data=voc"], "environment variable DETECTRON2_DATASETS"),
        (["--devices=0"], "--devices 0 is not allowed"),
        (["--devices=2", "--accelerator=cpu"], "2 processes need one GPU each"),
        (["--num-nodes=2"], "give --dist-url tcp://HOST:PORT of machine 0"),
        (["--node-rank=1"], "--node-rank 1 is not allowed"),
        (["--few-images=3%"], "--few-images 3% is not allowed: give 1%, 5% or 10%"),
        (["--save-every=0"], "--save-every 0 is not allowed"),
        (["--seed=-1"], "--seed -1 is not allowed"),
        (["--against=nowhere"], "no weights at 'nowhere'"),
        (["--weights=random"], "random weights need an architecture"),
        (["--out=/dev/null"], "/dev/null is a file, but a folder is needed there"),
        (["--out=/dev/null/out"], "/dev/null is a file, but a folder is needed there"),
    ],
)
def test_wrong_input_is_one_line(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], told: str
) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    out = finished / "elsewhere"
    assert main(_arguments(finished, f"--out={out}", *more)) == 2
    captured = capsys.readouterr().err
    assert told in captured
    assert captured.count("\n") == 1
    assert not out.exists()


def test_ground_truth_as_predictions_scores_100(draw: Draw, tmp_path: Path) -> None:
    from ccop_eval.detection.trainer import Trainer
    from detectron2.data import DatasetCatalog
    from detectron2.structures import Boxes, BoxMode, Instances
    from pycocotools import mask as rle

    data = open_coco(draw(tmp_path / "shapes", train=1, val=6))
    cfg = configure("small-cpu", arch="resnet18", input_facts={}, data=data, device="cpu").cfg
    cfg.OUTPUT_DIR = str(tmp_path)
    scorer = Trainer.build_evaluator(cfg, data.val.name)
    scorer.reset()
    for record in DatasetCatalog.get(data.val.name):
        objects: list[dict[str, Any]] = record["annotations"]
        instances = Instances((record["height"], record["width"]))
        boxes = torch.tensor([entry["bbox"] for entry in objects])
        instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        instances.pred_classes = torch.tensor([entry["category_id"] for entry in objects])
        instances.scores = torch.linspace(0.9, 0.5, len(objects))
        masks = [rle.decode(rle.merge(rle.frPyObjects(entry["segmentation"], 128, 128))) for entry in objects]
        instances.pred_masks = torch.from_numpy(np.stack(masks).astype(bool))
        scorer.process([record], [{"instances": instances}])
    results = scorer.evaluate()
    for kind in ("bbox", "segm"):
        assert results[kind]["AP"] == pytest.approx(100.0)
        assert results[kind]["AP75"] == pytest.approx(100.0)


def test_boxes_alone_are_scored_without_masks(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path / "shapes", train=2, val=2)
    for path in (root / "annotations").iterdir():
        document = json.loads(path.read_text())
        for entry in document["annotations"]:
            del entry["segmentation"]
        path.write_text(json.dumps(document))
    out = tmp_path / "out"
    flags = ["--weights=random", "--backbone=resnet18", "--protocol=small-cpu", "--iterations=2", "--workers=0"]
    assert main(["detection", *flags, "--batch-size=2", f"--data={root}", f"--out={out}"]) == 0
    result = Result.read(out)
    assert all(name.startswith("bbox/") for name in result.metrics)
    assert "the data set has boxes without masks: no mask head, no mask AP" in result.notes
    assert result.loaded == "nothing"
    shutil.rmtree(out)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_trained_on_is_told_by_its_name(
    draw: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    root = draw(tmp_path / "shapes", train=2, val=1)
    for path in (root / "train2017").iterdir():
        path.write_bytes(path.read_bytes()[:300])
    flags = ["--weights=random", "--backbone=resnet18", "--protocol=small-cpu", f"--workers={workers}"]
    assert main(["detection", *flags, f"--data={root}", f"--out={tmp_path / 'out'}"]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(
        rf"ccop-eval: {root}/train2017/00000[12]\.png cannot be read: image file is truncated.*\n", told
    )
    assert not (tmp_path / "out" / "result.json").exists()


def test_an_image_of_another_size_than_listed_is_told(
    draw: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(tmp_path / "shapes", train=1, val=1)
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"width": 128', '"width": 130'))
    flags = ["--weights=random", "--backbone=resnet18", "--protocol=small-cpu", "--workers=0"]
    assert main(["detection", *flags, f"--data={root}", f"--out={tmp_path / 'out'}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"ccop-eval: {root}/train2017/000001.png has 128 x 128 pixels, but {path} lists it with 130")
    assert told.count("\n") == 1


def test_voc_is_trained_on_and_scored_by_its_own_metric(
    write_voc: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses the small network, since VOC's protocol is too slow on a CPU."""
    from ccop_eval.detection import config
    from ccop_eval.detection.average_precision import voc_scores

    monkeypatch.setitem(config.SCORERS, "small-cpu", "voc")
    root, out = write_voc(tmp_path / "voc"), tmp_path / "out"
    flags = ["--weights=random", "--backbone=resnet18", "--protocol=small-cpu", "--iterations=2", "--workers=0"]
    assert main(["detection", *flags, "--batch-size=2", f"--data={root}", f"--out={out}"]) == 0
    result = Result.read(out)
    assert set(result.metrics) == {"bbox/AP", "bbox/AP50", "bbox/AP75"}
    assert result.data.name == "voc07+12"
    assert "AP by Pascal VOC 2007's metric (11 points of recall)" in result.notes
    data = open_data(str(root))
    predictions = out / "detectron2" / "inference" / "coco_instances_results.json"
    again = voc_scores(data.val.annotations, predictions, data.class_names)["bbox"]
    assert result.metrics == {f"bbox/{name}": again[name] for name in ("AP", "AP50", "AP75")}
    assert result.per_class["bbox/AP"]["tvmonitor"] == again["AP-tvmonitor"]
    assert result.per_class["bbox/AP"]["cow"] is None, "no cow in the picture"


def test_a_process_that_was_not_given_the_plan_makes_it(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the processes of a multi-GPU run, but with a single CPU process."""
    from ccop_eval.detection import run
    from ccop_eval.settings import DetectionSettings

    out = finished / "out"
    before = json.loads((out / "detectron2" / "outcome.json").read_text())
    (out / "detectron2" / "outcome.json").unlink()
    settings = DetectionSettings(
        weights=str(finished / "exported"),
        data=str(finished / "shapes"),
        out=out,
        protocol="small-cpu",
        iterations=ITERATIONS,
        workers=0,
        eval_only=True,
    )
    run.work(settings, None)
    again = json.loads((out / "detectron2" / "outcome.json").read_text())
    assert json.dumps(again["scores"]) == json.dumps(before["scores"])
    assert again["report"] == before["report"]
