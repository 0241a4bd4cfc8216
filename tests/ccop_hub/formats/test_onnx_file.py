import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import ccop_hub
from ccop_hub.cli import main
from ccop_hub.errors import UserError
from ccop_hub.formats.onnx_file import OnnxModel
from ccop_hub.publishing.verification import verify


@pytest.fixture(scope="module")
def model(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    done = ccop_hub.convert(str(tiny_run), "onnx", path, outputs=["pooled", "res4", "p3"])
    assert isinstance(done, OnnxModel)
    return done


@pytest.mark.parametrize("size", [(1, 3, 64, 64), (2, 3, 70, 129)])
def test_the_model_computes_the_features_for_any_number_and_size_of_images(
    model: OnnxModel, tiny_run: Path, size: tuple[int, ...]
) -> None:
    network = ccop_hub.load(str(tiny_run), pyramid=True)
    images = torch.randn(size, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(str(model.path))
    found = dict(zip(model.outputs, session.run(None, {"images": images.numpy()}), strict=True))
    with torch.no_grad():
        stages = network.stages(images)
        expected = {"pooled": network.backbone(images), "res4": stages["res4"], "p3": network.pyramid(stages)["p3"]}
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-4, rtol=1e-4)


def test_the_opset_and_the_difference_are_stated(model: OnnxModel) -> None:
    content = onnx.load(str(model.path))
    assert [one.version for one in content.opset_import if not one.domain] == [model.opset] == [18]
    assert 0 < model.largest_difference < 1e-3
    assert {prop.key for prop in content.metadata_props} >= {"ccop"}
    assert [output.name for output in content.graph.output] == ["pooled", "res4", "p3"]


def test_verify_compares_the_features_with_those_of_the_export(model: OnnxModel, tmp_path: Path) -> None:
    assert [check.passed for check in verify(model.path)] == [None, True]
    content = onnx.load(str(model.path))
    largest = max(content.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = (2 * np.frombuffer(largest.raw_data, np.float32)).tobytes()
    onnx.save(content, str(tmp_path / "changed.onnx"))
    checks = verify(tmp_path / "changed.onnx")
    assert checks[1].passed is False
    assert "differs by" in checks[1].told
    (tmp_path / "none.onnx").write_bytes(b"no model")
    assert "is not an ONNX model" in verify(tmp_path / "none.onnx")[1].told


def test_wrong_requests_are_refused(run: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--outputs .* --to onnx"):
        ccop_hub.convert(str(tiny_run), "timm", tmp_path / "timm", outputs=["res4"])
    with pytest.raises(UserError, match=r"ending in \.onnx"):
        ccop_hub.convert(str(tiny_run), "onnx", tmp_path / "model.pth")
    ccop_hub.convert(str(tiny_run), "timm", tmp_path / "backbone")
    with pytest.raises(UserError, match="no feature pyramid, so no output p3"):
        ccop_hub.convert(str(tmp_path / "backbone"), "onnx", tmp_path / "model.onnx", outputs=["p3"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime.*pip install 'ccop-hub\[onnx\]'"):
        ccop_hub.convert(str(tiny_run), "onnx", tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


def test_the_command_prints_the_opset_and_the_difference(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(tiny_run), "--to", "onnx", "--outputs", "res5", "--out", str(tmp_path / "m.onnx")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "opset 18" in printed
    assert "differ by at most" in printed
    assert f"ccop-hub verify {tmp_path / 'm.onnx'}" in printed
