from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from ccop_hub.architectures import ResNetFPN, build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import read_checkpoint
from ccop_hub.formats.names import KeyMismatchError
from ccop_hub.formats.recognition import FORMATS, find_state_dict, identify

from .. import foreign_layouts as layouts

each_layout = pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.__name__)


@pytest.fixture(scope="module")
def resnet50() -> dict[str, Tensor]:
    return build_resnet_fpn("resnet50", seed=1).state_dict()


def split(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return layouts.part(tensors, "backbone"), layouts.part(tensors, "fpn")


@each_layout
def test_resnet50_in_every_layout(layout: layouts.Layout, resnet50: dict[str, Tensor]) -> None:
    tree = layout(*split(resnet50))
    name, has_pyramid, has_more = layouts.LAYOUTS[layout]
    found = identify(find_state_dict(tree))
    assert (found.format, found.arch, bool(found.unused)) == (name, "resnet50", has_more)
    assert set(found.tensors) == {key for key in resnet50 if has_pyramid or key.startswith("backbone.")}
    for key, value in found.tensors.items():
        assert torch.equal(value, resnet50[key]), key
    # Every tensor of the file is accounted for: in the network, or named as unused.
    used = [key for key in found.tensors if not key.endswith("num_batches_tracked")]
    given = [
        key for key in layouts.state_of(tree) if key not in found.unused and not key.endswith("num_batches_tracked")
    ]
    assert len(used) == len(given)
    assert set(found.unused) <= set(layouts.state_of(tree))


def same_where_both(tensors: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for key, value in other.items():
        assert torch.equal(tensors[key], value) or key.endswith("num_batches_tracked"), key


@each_layout
def test_files_in_every_layout(layout: layouts.Layout, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save(layout(*split(tensors)), file)
    found = read_checkpoint(file)
    assert found.format == layouts.LAYOUTS[layout][0]
    assert found.arch == "resnet18"
    assert ("fpn" in found.parts) == layouts.LAYOUTS[layout][1]
    same_where_both(tensors, dict(found.tensors))
    assert found.facts["input"]["channel_order"] == "RGB"
    network = ResNetFPN("resnet18")
    network.load_state_dict(dict(found.tensors), strict=False)
    network.backbone.load_state_dict(found.part("backbone"), strict=True)


@pytest.mark.parametrize("layout", layouts.PICKLED, ids=lambda layout: layout.__name__)
def test_pickled_arrays(layout: layouts.Layout, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    tree = layout(*split(tensors))
    tree["model"] = {key: value.numpy() for key, value in tree["model"].items()}
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(tree))
    found = read_checkpoint(file)
    assert found.format == layouts.LAYOUTS[layout][0]
    same_where_both(tensors, dict(found.tensors))


def test_timm_folder(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    from timm.models._hub import save_for_hf

    model = timm.create_model("resnet18", num_classes=7)
    model.load_state_dict(split(tensors)[0], strict=False)
    save_for_hf(model, str(tmp_path / "timm"), safe_serialization=True)
    found = read_checkpoint(tmp_path / "timm")
    assert (found.format, found.arch, found.unused) == ("timm", "resnet18", ("fc.bias", "fc.weight"))
    assert found.facts["input"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    same_where_both(tensors, dict(found.tensors))


def test_timm_folder_of_an_unusual_resnet(tmp_path: Path) -> None:
    from timm.models._hub import save_for_hf

    model = timm.create_model("resnet18d", num_classes=7)
    save_for_hf(model, str(tmp_path / "timm"), safe_serialization=True)
    found = read_checkpoint(tmp_path / "timm")
    assert (found.arch, set(found.unused)) == ("resnet18d", {"fc.weight", "fc.bias"})
    assert torch.equal(found.tensors["backbone.conv1.6.weight"], model.conv1[6].weight)


@pytest.mark.parametrize("arch", ["resnet34", "wide_resnet50_2", "resnext50_32x4d"])
def test_architecture_from_names_and_shapes(arch: str) -> None:
    state = timm.create_model(arch).state_dict()
    assert identify(state).arch == arch


def test_every_format_has_a_layout_that_is_recognised_as_it() -> None:
    assert {expected[0] for expected in layouts.LAYOUTS.values()} == {known.name for known in FORMATS}


def test_half_precision_is_widened(tensors: dict[str, Tensor]) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    found = identify(half)
    assert found.tensors["backbone.conv1.weight"].dtype == torch.float32
    assert torch.equal(found.tensors["backbone.conv1.weight"], half["backbone.conv1.weight"].float())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone.layer1.0.conv1.weight": None}, r"missing: layer1\.0\.conv1\.weight|missing: backbone\.layer1"),
        ({"backbone.layer1.0.conv9.weight": torch.zeros(1)}, r"unknown: .*layer1\.0\.conv9\.weight"),
        ({"backbone.conv1.weight": torch.zeros(64, 3, 3, 3)}, r"backbone\.conv1\.weight is \(64, 3, 3, 3\), not"),
        ({"backbone.bn1.weight": torch.zeros(64, dtype=torch.int64)}, r"bn1\.weight is of type int64"),
        ({"backbone.bn1.bias": torch.full((64,), math.nan)}, r"NaN or infinite numbers in backbone\.bn1\.bias"),
        ({"fpn.layer_blocks.0.1.running_var": torch.full((256,), math.inf)}, "NaN or infinite"),
        ({"backbone.bn1.bias": torch.zeros(64, dtype=torch.complex64)}, "dense tensor of real numbers"),
        ({"backbone.bn1.bias": torch.zeros(64).to_sparse()}, "dense tensor of real numbers"),
        ({"backbone.conv1.weight": torch.zeros(1).expand(10**6, 10**6, 3, 7)}, "smaller storage"),
        ({"fpn.inner_blocks.2.0.weight": None}, r"missing: fpn\.inner_blocks\.2\.0\.weight"),
    ],
)
def test_broken_networks_are_refused(
    tensors: dict[str, Tensor], change: dict[str, Tensor | None], said: str, tmp_path: Path
) -> None:
    state = {key: value for key, value in {**tensors, **change}.items() if value is not None}
    with pytest.raises(UserError, match=said) as raised:
        identify(state)
    assert "\n" not in str(raised.value)


def test_a_file_of_another_kind_lists_what_is_known() -> None:
    with pytest.raises(UserError, match=r"vit\.patch_embed.*known are: .*Detectron2.*MoCo.*torchvision"):
        identify({"vit.patch_embed": torch.zeros(1)})
    with pytest.raises(UserError, match="no tensors under epoch"):
        find_state_dict({"epoch": 3})
    with pytest.raises(UserError, match="holds a list"):
        find_state_dict([torch.zeros(1)])


@pytest.mark.parametrize("key", ["model", "blobs", None])
def test_caffe2_names_are_refused_by_a_line_of_their_own(key: str | None) -> None:
    blobs = {"conv1_w": torch.zeros(64, 3, 7, 7), "res2_0_branch2a_w": torch.zeros(64, 64, 1, 1)}
    with pytest.raises(UserError, match=r"Caffe2 names .* are not read: give the same network as torchvision"):
        identify(find_state_dict({key: blobs} if key else blobs))


def test_names_are_shown_on_one_line(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(UserError) as raised:
        identify({**tensors, "backbone.\x1b[2J\nowned": torch.zeros(1)})
    assert str(raised.value).isprintable()
    assert "unknown: backbone. [2J owned" in str(raised.value)


def test_mismatch_names_the_file(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    state = dict(tensors)
    del state["backbone.layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(
        KeyMismatchError, match=r"lacking\.pth: .*missing: backbone\.layer2\.0\.conv1\.weight"
    ) as raised:
        read_checkpoint(tmp_path / "lacking.pth")
    assert raised.value.missing == ("backbone.layer2.0.conv1.weight",)
