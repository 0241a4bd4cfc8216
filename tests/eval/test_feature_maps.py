import json

import numpy as np
import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.feature_maps import box_similarity, colour_basis
from PIL import Image

from ccop_hub.cli import main as hub_main


def visualize(images, out, *flags):
    common = ["--backbone", "resnet18", "--accelerator", "cpu", "--image_size", "96"]
    weights = [] if "--weights" in flags else ["--weights", "[random]"]
    return main(["visualize", *map(str, images), *weights, *common, "--out", str(out), *flags])


def test_basis_finds_the_directions_of_most_variance():
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(3, 20, 30)) * np.array([9.0, 4.0, 2.0])[:, None, None]
    mixing = np.linalg.qr(generator.normal(size=(6, 3)))[0]
    features = np.tensordot(mixing, latent, axes=1) + 5 + generator.normal(0, 1e-3, (6, 20, 30))
    basis = colour_basis([features[:, :10], features[:, 10:]])
    assert basis.explained > 99.9
    np.testing.assert_allclose(np.abs(basis.axes @ mixing), np.eye(3), atol=0.15)
    colours = basis.paint(features)
    assert colours.shape == (20, 30, 3)
    along = np.tensordot(features - basis.mean[:, None, None], basis.axes[0], axes=([0], [0]))
    order = np.argsort(along.ravel())
    assert (np.diff(colours[..., 0].ravel()[order].astype(int)) >= 0).all(), "more along the first axis is more red"
    assert colours[..., 0].ravel()[order[0]] == 0
    assert colours[..., 0].ravel()[order[-1]] == 255


def test_similarity_is_highest_where_the_box_is():
    features = torch.zeros(2, 8, 8)
    features[0] = 1.0
    features[:, 2:4, 4:7] = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    features[:, 6, 0] = torch.tensor([0.0, 5.0])
    similarity = box_similarity(features, (20.0, 10.0, 24.0, 14.0), stride=4)
    expected = torch.zeros(8, 8)
    expected[2:4, 4:7] = 1
    expected[6, 0] = 1
    torch.testing.assert_close(similarity > 0.8, expected > 0)


def test_columns_show_one_kind_of_feature(tmp_path, tiny_weights, capsys):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    backbone = tmp_path / "backbone"
    assert hub_main(["convert", str(tiny_weights), "--to", "timm", "--out", str(backbone)]) == 0
    both = ["--weights", str(tiny_weights), str(backbone)]
    assert visualize([tmp_path / "a.png"], tmp_path / "out", *both) == 0
    results = [json.loads((tmp_path / "out" / name / "result.json").read_text()) for name in ("00", "01")]
    assert [list(result["metrics"]) for result in results] == [[f"explained/res{stage}" for stage in range(2, 6)]] * 2
    assert visualize([tmp_path / "a.png"], tmp_path / "pyramid", *both, "--features", "pyramid") == 2
    assert "has no pyramid" in capsys.readouterr().err
    sheet = Image.open(tmp_path / "out" / "a.png")
    assert sheet.width < 1300, "it fits a page"


def test_two_rows_and_a_result_for_each_network(tmp_path, drawn_scenes, tiny_weights):
    for number, file in enumerate(sorted((drawn_scenes / "val2017").iterdir())[:2]):
        Image.open(file).crop((0, 0, 80, 80)).save(tmp_path / f"{number}.png")
    flags = ["--weights", f"[random,{tiny_weights}]", "--box", "[8,16,40,72]"]
    assert visualize([tmp_path / "0.png", tmp_path / "1.png"], tmp_path / "out", *flags) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "00", "01", "1.png", "settings.yaml"]
    sheet = np.asarray(Image.open(tmp_path / "out" / "0.png")).astype(int)
    red = (sheet[..., 0] > 230) & (sheet[..., 1] < 60) & (sheet[..., 2] < 60)
    half = len(sheet) // 2
    assert red[:half].sum() > 100
    assert red[half:].sum() > 100, "the box is drawn for both networks"
    first, second = (json.loads((tmp_path / "out" / name / "result.json").read_text()) for name in ("00", "01"))
    assert first["loaded"] == "backbone+fpn"
    assert first["weights"]["digest"] != second["weights"]["digest"]
    assert set(first["metrics"]) == {f"explained/p{level}" for level in range(2, 6)}
    assert visualize([tmp_path / "0.png"], tmp_path / "out") == 2, "other settings need --overwrite"


@pytest.mark.parametrize(
    ("flags", "says"),
    [(["--box", "[0,0,500,20]"], "is not inside"), (["--box", "[30,0,20,20]"], "x1 < x2"), ([], "no image")],
)
def test_mistakes_are_one_line(tmp_path, capsys, flags, says):
    image = tmp_path / "a.png"
    if flags:
        Image.new("RGB", (64, 64)).save(image)
    assert visualize([image], tmp_path / "out", *flags) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.strip().count("\n") == 0


def test_features_that_are_not_finite_are_refused(tmp_path, overflowing_weights, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    assert visualize([tmp_path / "a.png"], tmp_path / "out", "--weights", f"[{overflowing_weights}]") == 2
    assert "a.png" in (message := capsys.readouterr().err)
    assert "not finite" in message
