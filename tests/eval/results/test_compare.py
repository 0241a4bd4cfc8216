import csv
import dataclasses
import io

import pytest
from ccop_eval.cli import main
from ccop_eval.results.comparison import group_results
from ccop_eval.results.result import DataIdentity, Engine, Interval, WeightsIdentity
from ccop_eval.results.tables import print_group
from rich.console import Console

from ccop_hub.console import table_console


@pytest.fixture
def detection(make_result):
    def make(name, ap, **changes):
        values = {
            "task": "detection",
            "protocol": "coco-fpn-4conv1fc-1x",
            "engine": Engine(name="detectron2", version="0.6", where="registry", compiled=False),
            "weights": WeightsIdentity(name=name, digest=f"sha256:{name}", arch="resnet18"),
            "metrics": {"bbox/AP": ap, "bbox/AP50": 2 * ap},
            "against": None,
            "paired": {},
            "intervals": {},
        }
        return make_result(**{**values, **changes})

    return make


def write(tmp_path, *results):
    return [str(result.write(tmp_path / f"{index}.json")) for index, result in enumerate(results)]


def table_rows(text):
    return [
        [cell.strip() for cell in line.strip("| \n").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


def test_row_a_result_with_difference_to_the_first(detection, tmp_path, capsys):
    files = write(tmp_path, detection("random", 10.0), detection("ccop", 12.5))
    assert main(["compare", *files, "--markdown", str(tmp_path / "table.md")]) == 0
    header, _, first, second = table_rows((tmp_path / "table.md").read_text())
    assert header == ["weights", "loaded", "data", "protocol", "engine", "seed", "lr", "bbox/AP", "bbox/AP50"]
    engine = "detectron2 0.6 (registry, uncompiled)"
    assert first == ["random", "backbone", "toy", "coco-fpn-4conv1fc-1x", engine, "3", "-", "10.0", "20.0"]
    assert second[-2:] == ["12.5 (+2.5)", "25.0 (+5.0)"]
    printed = capsys.readouterr().out
    assert "12.5 (+2.5)" in printed
    assert "coco-fpn-4conv1fc-1x" in printed.replace("\n", "")


def test_neighbours_of_any_number_have_a_column(make_result):
    metrics = {"k5/top1": 40.0, "k5/top5": 90.0, "k300/top1": 41.0, "k300/top5": 91.0}
    (group,) = group_results([make_result(task="knn", metrics=metrics, against=None, paired={})])
    assert group.metric_names() == ["k5/top1", "k300/top1"]
    assert group.metric_names(["k5/top5"]) == ["k5/top5"]


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "coco-c4-1x"},
        {"data": DataIdentity(name="toy", digest="sha256:other", images=12)},
        {"engine": Engine(name="detectron2", version="0.7")},
        {"task": "segmentation"},
    ],
)
def test_results_that_are_not_comparable_never_share_a_table(detection, change):
    other = dataclasses.replace(detection("ccop", 12.5), **change)
    groups = group_results([detection("random", 10.0), other, detection("late", 11.0)])
    assert [[row.label for row in group.rows] for group in groups] == [["random", "late"], ["ccop"]]
    assert groups[1].difference(groups[1].rows[0], "bbox/AP") is None


def test_paired_run_shows_its_baseline_once_and_its_interval(make_result, tmp_path):
    first = make_result()
    again = make_result(
        weights=WeightsIdentity(name="second", digest="sha256:3", arch="resnet18"),
        metrics={"top1": 48.25},
        paired={"top1": Interval(difference=-2.0, low=-2.5, high=-1.5)},
    )
    (group,) = group_results([first, again])
    assert [row.label for row in group.rows] == ["theirs", "mine", "second"]
    files = write(tmp_path, first, again)
    assert main(["compare", *files, "--csv", str(tmp_path / "t.csv"), "--markdown", str(tmp_path / "t.md")]) == 0
    assert "51.2 (+1.0 [-1.0, +3.0])" in (tmp_path / "t.md").read_text()
    with (tmp_path / "t.csv").open() as file:
        rows = {(row["weights"], row["metric"]): row for row in csv.DictReader(file)}
    assert float(rows["second", "top1"]["difference"]) == -2.0
    assert float(rows["second", "top1"]["difference_high"]) == -1.5
    assert rows["theirs", "top1"]["difference"] == ""


def test_undefined_value_has_no_difference(detection, tmp_path):
    files = write(tmp_path, detection("random", 1.0), detection("b", 2.0, metrics={"bbox/AP": None, "bbox/AP50": 4.0}))
    assert main(["compare", *files, "--markdown", str(tmp_path / "table.md")]) == 0
    assert table_rows((tmp_path / "table.md").read_text())[-1][-2:] == ["-", "4.0 (+2.0)"]


def test_chosen_metrics_and_all(detection, tmp_path):
    result = detection("a", 1.0, metrics={"bbox/AP": 1.0, "bbox/APs": 0.5})
    (file,) = write(tmp_path, result)
    for chosen, columns in (("bbox/APs", ["bbox/APs"]), ("all", ["bbox/AP", "bbox/APs"])):
        assert main(["compare", file, f"--metrics=[{chosen}]", "--markdown", str(tmp_path / "t.md")]) == 0
        assert table_rows((tmp_path / "t.md").read_text())[0][7:] == columns


def test_wrong_file_is_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "coco.json").write_text('{"images": []}')
    assert main(["compare", str(tmp_path / "coco.json")]) == 2
    message = capsys.readouterr().err
    assert "is not a result" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("width", [None, 80])
def test_no_number_is_cut_off(make_result, monkeypatch, width):
    metrics = {f"metric/number{index}": 10.5 + index for index in range(6)}
    results = [make_result(metrics=metrics, against=None, paired={}), make_result(metrics=metrics, against=None)]
    buffer = io.StringIO()
    console = table_console() if width is None else Console(width=width, force_terminal=True)
    console.file = buffer
    (group,) = group_results(results)
    print_group(console, group, ["all"])
    printed = buffer.getvalue()
    for value in metrics.values():
        assert printed.count(f"{value:.1f}") == 2
    assert printed.count("(+0.0)") == 6
