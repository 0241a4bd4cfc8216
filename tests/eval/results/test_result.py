import dataclasses
import json
import math

import pytest
from ccop_eval.cli import main
from ccop_eval.results.result import MAX_POINTS, SCHEMA_VERSION, Result, protocol_id

from ccop_hub.errors import UserError


def test_result_survives_the_disk_whole(tmp_path, make_result):
    result = make_result()
    file = result.write(tmp_path / "run" / "result.json")
    assert Result.read(file) == result
    assert Result.read(tmp_path / "run") == result
    assert [path.name for path in file.parent.iterdir()] == ["result.json"], "no temporary file may stay behind"


def test_undefined_number_is_null_in_the_file_and_none_in_memory(tmp_path, make_result):
    file = make_result(metrics={"bbox/APs": math.nan, "bbox/AP": 1.5}).write(tmp_path / "result.json")
    assert json.loads(file.read_text())["metrics"] == {"bbox/APs": None, "bbox/AP": 1.5}
    assert Result.read(file).metrics == {"bbox/APs": None, "bbox/AP": 1.5}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not a result"),
        ("[1]", "no schema_version"),
        ('{"schema_version": 1, "task": "linear"}', "protocol: "),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "newer than"),
    ],
)
def test_what_is_not_a_result_is_the_users_mistake(tmp_path, content, says):
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(UserError, match=says):
        Result.read(file)


def test_missing_file_and_wrong_value_are_named(tmp_path, make_result):
    with pytest.raises(UserError, match="no result at"):
        Result.read(tmp_path / "absent")
    content = dataclasses.asdict(make_result())
    content["metrics"]["top1"] = "high"
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"metrics\.top1"):
        Result.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("metrics", '{"top1": [1.0]}'),
        ("metrics", '{"top1": NaN}'),
        ("metrics", '{"top1": 1e999}'),
        ("metrics", '{"top1": 1e300}'),
        ("metrics", '{"top1": true}'),
        ("intervals", '{"top1": [1.0]}'),
        ("per_class", '{"top1": {"cat": "high"}}'),
        ("curve", '[{"step": Infinity}]'),
        ("seed", "1.5"),
        ("seed", "1" + "0" * 5000),
        ("notes", '"text"'),
        ("details", "{" + '"a":{' * 5000 + "}" * 5001),
        ("baseline", "[]"),
    ],
)
def test_wrong_values_are_refused_in_one_line(tmp_path, make_result, field, wrong):
    file = make_result().write(tmp_path / "result.json")
    content = json.loads(file.read_text())
    content[field] = "PLACE"
    file.write_text(json.dumps(content).replace('"PLACE"', wrong))
    with pytest.raises(UserError, match=r"result\.json is not a result: ") as caught:
        Result.read(file)
    assert "\n" not in str(caught.value)


def test_file_too_large_for_a_result_is_not_read(tmp_path):
    with (tmp_path / "result.json").open("wb") as stream:
        stream.truncate(17 * 2**20)
    with pytest.raises(UserError, match="16 MiB"):
        Result.read(tmp_path)


def test_second_weights_keep_their_published_key_and_byte_order_mark_is_read(tmp_path, make_result):
    result = make_result()
    file = result.write(tmp_path / "result.json")
    content = json.loads(file.read_text())
    assert content["baseline"]["weights"]["name"] == "theirs"
    assert "against" not in content
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert Result.read(file) == result


def test_protocol_id_names_every_departure():
    assert protocol_id("linear-sweep", {}) == "linear-sweep"
    assert protocol_id("linear-sweep", {"short_side": 64, "epochs": 2}) == "linear-sweep+epochs=2,short_side=64"


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("linear", ["--epochs", "0"], "--epochs 0 is not allowed"),
        ("knn", ["--image-size", "0"], "--image-size 0 is not allowed"),
        ("regions", ["--neighbours", "0"], "--neighbours 0 is not allowed"),
        ("segmentation", ["--iterations", "-3"], "--iterations -3 is not allowed"),
        ("segmentation", ["--crop-size", "0"], "--crop-size 0 is not allowed"),
        ("voc-svm", ["--devices", "0"], "--devices 0 is not allowed"),
    ],
)
def test_numbers_that_measure_nothing_are_refused(command, flags, said, tmp_path, capsys):
    assert main([command, "--weights", "w", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", [None, "baseline"])
def test_a_curve_that_no_evaluation_draws_is_refused(make_result, tmp_path, side):
    curve = {"curve": [{"step": 1}] * (MAX_POINTS + 1)}
    document = {**make_result().document(), **({side: curve} if side else curve)}
    (tmp_path / "result.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="curve of more than 100000 points"):
        Result.read(tmp_path)
