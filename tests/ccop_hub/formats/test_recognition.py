from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from ccop_hub.architectures import ResNetFPN, build_resnet_fpn
from ccop_hub.errors import UserError
from ccop_hub.formats.checkpoint import read_checkpoint
from ccop_hub.formats.families import FAMILIES
from ccop_hub.formats.names import KeyMismatchError
from ccop_hub.formats.recognition import identify

from .. import foreign_layouts as layouts

each_layout = pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.__name__)


@pytest.fixture(scope="module")
def resnet50() -> dict[str, Tensor]:
    return build_resnet_fpn("resnet50", seed=1).state_dict()


def split(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return layouts.part(tensors, "backbone"), layouts.part(tensors, "fpn")


def is_invented(key: str, layout: layouts.Layout | None) -> bool:
    """Whether a file may lack a tensor: batch counters, and BN statistics in Caffe2's folded norms."""
    folded = layout in (layouts.msra, layouts.caffe2_model) and "running_" in key
    return key.endswith("num_batches_tracked") or folded


def sizes(tree: Any) -> set[int]:
    """Number of tensors, without counters, in every mapping of a file."""
    if isinstance(tree, list):
        return set().union(*map(sizes, tree))
    if not isinstance(tree, dict):
        return set()
    own = sum(isinstance(item, Tensor) and not str(key).endswith("num_batches_tracked") for key, item in tree.items())
    return {own}.union(*map(sizes, tree.values()))


@each_layout
def test_resnet50_in_every_layout(layout: layouts.Layout, resnet50: dict[str, Tensor]) -> None:
    tree = layout(*split(resnet50))
    name, has_pyramid, has_more = layouts.LAYOUTS[layout]
    found = identify(tree)
    assert (found.format, found.arch, bool(found.unused)) == (name, "resnet50", has_more)
    assert set(found.tensors) == {key for key in resnet50 if has_pyramid or key.startswith("backbone.")}
    for key, value in found.tensors.items():
        if not is_invented(key, layout) or "running_" not in key:
            assert torch.equal(value, resnet50[key]), key
    if layout is not layouts.modules_by_name:
        # Every tensor of the state dict is either in the network or reported as unused.
        used = sum(not is_invented(key, layout) for key in found.tensors)
        assert used + sum(not key.endswith("num_batches_tracked") for key in found.unused) in sizes(tree)


def same_where_both(tensors: dict[str, Tensor], other: dict[str, Tensor], layout: layouts.Layout | None) -> None:
    for key, value in other.items():
        assert torch.equal(tensors[key], value) or is_invented(key, layout), key


@each_layout
def test_files_in_every_layout(layout: layouts.Layout, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save(layout(*split(tensors)), file)
    found = read_checkpoint(file)
    assert found.format == layouts.LAYOUTS[layout][0]
    assert found.arch == "resnet18"
    assert ("fpn" in found.parts) == layouts.LAYOUTS[layout][1]
    same_where_both(tensors, dict(found.tensors), layout)
    assert found.facts["input"]["channel_order"] == ("BGR" if found.format == "caffe2" else "RGB")
    network = ResNetFPN("resnet18")
    network.load_state_dict(dict(found.tensors), strict=False)
    network.backbone.load_state_dict(found.part("backbone"), strict=True)


def taken(tree: dict[str, Any]) -> tuple[str, set[str]]:
    found = identify(tree)
    return found.taken, set(found.others)


@pytest.mark.parametrize(
    ("layout", "place", "others"),
    [
        (layouts.moco, "state_dict.module.encoder_q", {"state_dict.module.encoder_k"}),
        (layouts.moco_v3, "state_dict.module.base_encoder", {"state_dict.module.momentum_encoder"}),
        (layouts.slotcon, "model.module.encoder_k", {"model.module.encoder_q"}),
        (layouts.pixpro, "model.module.encoder", {"model.module.encoder_k"}),
        (layouts.byol_pytorch, "net", {"online_encoder.net", "target_encoder.net"}),
        (layouts.byol, "online_encoder.net", {"target_encoder.net"}),
        (layouts.byol_files, "online_network_state_dict.encoder", {"target_network_state_dict.encoder"}),
        (layouts.solo_learn, "state_dict.backbone", {"state_dict.momentum_backbone"}),
        (layouts.lightly_moco, "state_dict.backbone", {"state_dict.backbone_momentum"}),
        (layouts.lightly_dino, "state_dict.teacher_backbone", {"state_dict.student_backbone"}),
        (layouts.dino, "teacher.module.backbone", {"student.module.backbone"}),
        (layouts.mmengine, "state_dict.backbone", {"state_dict.target_net.module.0"}),
        (layouts.mmengine_ema, "state_dict.backbone", {"ema_state_dict.module.backbone"}),
        (layouts.timm_training, "state_dict.module", {"state_dict_ema"}),
        (layouts.torchvision_training, "model", {"model_ema.module"}),
        (layouts.compiled_moco, "state_dict.module._orig_mod.encoder_q.module._orig_mod", None),
        (layouts.ccop, "state_dict.backbone_q.bottom_up", {"state_dict.backbone_k.bottom_up"}),
        (layouts.lightning, "state_dict.objective.query.network.backbone", None),
        (layouts.openselfsup_moco, "state_dict.backbone", {"state_dict.encoder_q.0", "state_dict.encoder_k.0"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_of_two_networks_the_documented_one_is_taken(
    layout: layouts.Layout, place: str, others: set[str] | None, tensors: dict[str, Tensor]
) -> None:
    found = taken(layout(*split(tensors)))
    assert found[0] == place
    assert others is None or found[1] == others


def test_two_networks_of_equal_standing_are_refused(tensors: dict[str, Tensor]) -> None:
    body, _ = split(tensors)
    other = {key: value + 1 for key, value in body.items()}
    both = layouts.under("left.", body) | layouts.under("right.", other)
    with pytest.raises(UserError, match=r"2 complete ResNets \(left, right\).*save the state dict of only one"):
        identify(both)
    assert taken(layouts.under("left.", body) | layouts.under("right.", body)) == ("left", {"right"})


def test_a_teacher_of_another_size_is_not_taken_for_the_student(
    tensors: dict[str, Tensor], resnet50: dict[str, Tensor]
) -> None:
    both = layouts.under("student.", split(tensors)[0]) | layouts.under("teacher.", split(resnet50)[0])
    with pytest.raises(UserError, match=r"2 complete ResNets \(student, teacher\)"):
        identify(both)


def test_only_whole_networks_count(tensors: dict[str, Tensor]) -> None:
    body, _ = split(tensors)
    broken = {key: value for key, value in body.items() if "layer3" not in key}
    found = identify(layouts.under("encoder_q.", broken) | layouts.under("encoder_k.", body))
    assert (found.taken, found.others) == ("encoder_k", ())


def test_caffe2_networks_say_what_is_different(tensors: dict[str, Tensor], resnet50: dict[str, Tensor]) -> None:
    found = identify(layouts.msra(*split(resnet50)))
    assert found.facts["input"] == {
        "mean": [103.53, 116.28, 123.675],
        "std": [1.0, 1.0, 1.0],
        "channel_order": "BGR",
        "range": "0-255",
    }
    assert found.facts["stride_in_1x1"] is True
    assert set(found.unused) == {"conv1_b", "pred_w", "pred_b", "conv1_w_momentum"}
    # A norm without statistics is a plain scale and shift.
    variance = found.tensors["backbone.bn1.running_var"] + 1e-5
    assert torch.equal(variance, torch.ones(64))
    assert not found.tensors["backbone.bn1.running_mean"].any()
    with pytest.raises(UserError, match="conv1_b is a non-zero bias"):
        identify({**layouts.blobs(split(tensors)[0]), "conv1_b": torch.ones(64)})


@pytest.mark.parametrize("layout", layouts.PICKLED, ids=lambda layout: layout.__name__)
def test_pickled_arrays(layout: layouts.Layout, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    tree = layout(*split(tensors))
    tree["model"] = {key: value.numpy() for key, value in tree["model"].items()}
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(tree))
    found = read_checkpoint(file)
    assert found.format == layouts.LAYOUTS[layout][0]
    same_where_both(tensors, dict(found.tensors), layout)


def test_timm_folder(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    from timm.models._hub import save_for_hf

    model = timm.create_model("resnet18", num_classes=7)
    model.load_state_dict(split(tensors)[0], strict=False)
    save_for_hf(model, str(tmp_path / "timm"), safe_serialization=True)
    found = read_checkpoint(tmp_path / "timm")
    assert (found.format, found.arch, found.unused) == ("timm", "resnet18", ("fc.bias", "fc.weight"))
    assert found.facts["input"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    same_where_both(tensors, dict(found.tensors), None)


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
    assert {expected[0] for expected in layouts.LAYOUTS.values()} == {family.name for family in FAMILIES}


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
    with pytest.raises(UserError, match=r"no ResNet among 1 tensors \(vit\.patch_embed.*Detectron2.*MoCo.*torchvision"):
        identify({"vit.patch_embed": torch.zeros(1)})
    with pytest.raises(UserError, match="epoch, and no tensors by name"):
        identify({"epoch": 3})
    with pytest.raises(UserError, match="contains a list, and no tensors by name"):
        identify([torch.zeros(1)])


def test_unknown_names_are_shown_on_one_line(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(UserError) as raised:
        identify({**tensors, "backbone.layer1.\x1b[2J\nowned": torch.zeros(1)})
    assert str(raised.value).isprintable()
    assert "unknown: backbone.layer1. [2J owned" in str(raised.value)


def test_mismatch_names_the_file(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    state = dict(tensors)
    del state["backbone.layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(
        KeyMismatchError, match=r"lacking\.pth: .*missing: backbone\.layer2\.0\.conv1\.weight"
    ) as raised:
        read_checkpoint(tmp_path / "lacking.pth")
    assert raised.value.missing == ("backbone.layer2.0.conv1.weight",)


def test_crowds_of_names_are_refused() -> None:
    one = torch.zeros(1)
    many = {f"n{number}.{name}": one for number in range(33) for name in ("conv1.weight", "layer1.0.conv1.weight")}
    with pytest.raises(UserError, match="contains 33 networks in one state dict"):
        identify(many)
    with pytest.raises(UserError, match="contains 100001 tensors in one state dict"):
        identify({f"n{number}.conv1.weight": one for number in range(100_001)})
