"""Checkpoints in the layouts of other projects, built from the naming rules in their source code.

Sources: facebookresearch/moco (builder.py, main_moco.py); open-mmlab/OpenSelfSup and mmselfsup (MoCo, BYOL), and
DenseCL and ORL on top of them; CVMI-Lab/SlotCon (models/slotcon.py); hologerry/SoCo (contrast/models, converters);
zdaxie/PixPro; facebookresearch/swav; facebookresearch/dino; facebookresearch/detectron2 (FPN, ResNet);
open-mmlab/mmdetection (FPN); ChenhongyiYang/CCOP (openselfsup/models/ccop.py, tools/to_d2_backbone.py).
"""

from __future__ import annotations

import argparse
import collections
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def filler(*shape: int) -> Tensor:
    """A tensor that takes no disk space, for parts that are not read."""
    return torch.zeros(()).expand(shape)


def fillers(names: Iterable[str]) -> State:
    return {name: filler(2, 2) for name in names}


def linear(*paths: str) -> State:
    return fillers(f"{path}.{kind}" for path in paths for kind in ("weight", "bias"))


def norm(*paths: str) -> State:
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return fillers(f"{path}.{kind}" for path in paths for kind in kinds)


def part(state: State, name: str) -> State:
    return {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(f"{name}.")}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def blank(state: State) -> State:
    return {key: filler(*value.shape) for key, value in state.items()}


def caffe(state: State) -> State:
    """Rename a torchvision ResNet's tensors to Detectron2's names."""

    def rename(key: str) -> str:
        key = key if key.startswith("layer") else f"stem.{key}"
        key = re.sub(r"layer(\d)", lambda found: f"res{int(found[1]) + 1}", key)
        key = re.sub(r"bn(\d)", r"conv\1.norm", key)
        return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")

    return {rename(key): value for key, value in state.items()}


CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def numbered(state: State) -> State:
    """Names in `nn.Sequential(*list(resnet.children())[:-1])`."""
    return {re.sub(r"^\w+", lambda found: str(CHILDREN[found[0]]), key): value for key, value in state.items()}


def hugging_face(state: State) -> State:
    """transformers' names: `embedder`, then stages of layers, each with three convolutions and maybe a shortcut."""

    def rename(key: str) -> str:
        key = re.sub(r"^(conv|bn)1\.", r"embedder.embedder.\1.", key)
        key = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", key)
        key = re.sub(r"\b(conv|bn)(\d)\.", lambda m: f"layer.{int(m[2]) - 1}.{m[1]}.", key)
        key = key.replace("downsample.0.", "shortcut.conv.").replace("downsample.1.", "shortcut.bn.")
        return key.replace(".conv.", ".convolution.").replace(".bn.", ".normalization.")

    return {rename(key): value for key, value in state.items()}


def blobs(state: State) -> State:
    """Caffe2's names, as read by Detectron2's `c2_model_loading.py`; without BN statistics."""
    found = {}
    for key, value in state.items():
        *path, kind = key.split(".")
        if kind not in ("weight", "bias"):
            continue
        where = ".".join(path)
        where = re.sub(r"layer(\d)\.(\d+)\.", lambda m: f"res{int(m[1]) + 1}_{m[2]}_", where)
        if "_" in where:
            where = re.sub(r"(conv|bn)(\d)$", lambda m: f"branch2{'abc'[int(m[2]) - 1]}", where)
        is_norm = path[-1].startswith("bn") or path[-2:] == ["downsample", "1"]
        where = (
            {"bn1": "res_conv1"}.get(where, where).replace("downsample.0", "branch1").replace("downsample.1", "branch1")
        )
        found[f"{where}{'_bn' if is_norm else ''}_{'b' if kind == 'bias' else 's' if is_norm else 'w'}"] = value
    return found


def fpn_by(state: State, lateral: str, output: str, first: int, conv: str, bn: str) -> State:
    """Rename a pyramid's tensors, by `lateral` and `output` templates for the level number."""
    found = {}
    for key, value in state.items():
        group, level, position, kind = key.split(".")
        path = (lateral if group == "inner_blocks" else output).format(first + int(level))
        found[".".join(word for word in (path, conv if position == "0" else bn, kind) if word)] = value
    return found


def detectron2_fpn(state: State) -> State:
    return fpn_by(state, "fpn_lateral{}", "fpn_output{}", 2, "", "norm")


def mm_fpn(state: State) -> State:
    return fpn_by(state, "lateral_convs.{}", "fpn_convs.{}", 0, "conv", "bn")


def without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def optimizer() -> dict[str, Any]:
    return {"state": {0: {"momentum_buffer": filler(2)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}


# --- one function per layout: backbone and pyramid tensors -> the file's contents


def moco(body: State, fpn: State, head: tuple[str, ...] = ("fc.0", "fc.2")) -> dict[str, Any]:
    state = under("module.encoder_q.", body | linear(*head)) | under("module.encoder_k.", blank(body) | linear(*head))
    state |= fillers(["module.queue", "module.queue_ptr"])
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer()}


def moco_v1(body: State, fpn: State) -> dict[str, Any]:
    return moco(body, fpn, ("fc",))


def openselfsup_moco(body: State, fpn: State) -> dict[str, Any]:
    encoder = under("0.", blank(body)) | linear("1.mlp.0", "1.mlp.2")
    state = fillers(["queue", "queue_ptr"]) | under("encoder_q.", encoder) | under("encoder_k.", encoder)
    return {"meta": {"epoch": 200, "mmcv_version": "1.0"}, "state_dict": state | under("backbone.", body)}


def densecl(body: State, fpn: State) -> dict[str, Any]:
    tree = openselfsup_moco(body, fpn)
    for side in ("encoder_q", "encoder_k"):
        tree["state_dict"] |= linear(f"{side}.1.mlp2.0", f"{side}.1.mlp2.2")
    tree["state_dict"] |= fillers(["queue2", "queue2_ptr"])
    return tree


def orl(body: State, fpn: State) -> dict[str, Any]:
    neck = linear("fc0", "fc1") | norm("bn0")
    net = under("0.", blank(body)) | under("1.", neck)
    state = under("online_net.", net) | under("target_net.", net) | under("backbone.", body) | under("neck.", neck)
    for head in ("global_head", "local_intra_head", "local_inter_head"):
        state |= under(f"{head}.predictor.", neck)
    return {"meta": {"epoch": 800}, "state_dict": state, "optimizer": optimizer()}


def mmselfsup_moco(body: State, fpn: State) -> dict[str, Any]:
    state = under("backbone.", body) | linear("neck.mlp.0", "neck.mlp.2") | fillers(["queue", "queue_ptr"])
    state |= under("encoder_k.module.0.", blank(body)) | linear("encoder_k.module.1.mlp.0", "encoder_k.module.1.mlp.2")
    return {"meta": {"epoch": 200}, "state_dict": state | fillers(["encoder_k.steps"]), "message_hub": {}}


def extracted(body: State, fpn: State) -> dict[str, Any]:
    return {"state_dict": body, "author": "OpenSelfSup"}


def slotcon(body: State, fpn: State) -> dict[str, Any]:
    state = under("encoder_q.", blank(body)) | under("encoder_k.", body) | fillers(["center"])
    for side in ("q", "k"):
        state |= linear(*(f"projector_{side}.mlp.{layer}" for layer in (0, 3, 6))) | norm(f"projector_{side}.mlp.1")
        state |= fillers([f"grouping_{side}.slot_embed.weight"])
    state |= linear("predictor_slot.mlp.0", "predictor_slot.mlp.3")
    arguments = argparse.Namespace(arch="resnet50", batch_size=512, dim_out=256)
    return {
        "args": arguments,
        "model": under("module.", state),
        "optimizer": optimizer(),
        "scheduler": {},
        "epoch": 800,
    }


def soco_state(body: State, fpn: State) -> State:
    state = under("encoder.", body) | under("encoder_k.", blank(body))
    state |= under("neck.", mm_fpn(fpn)) | under("neck_k.", blank(mm_fpn(fpn)))
    for head in ("head", "head_k"):
        state |= fillers(f"{head}.conv{i}.weight" for i in range(1, 5)) | norm(*(f"{head}.bn{i}" for i in range(1, 5)))
        state |= linear(f"{head}.fc1")
    for mlp in ("projector", "projector_k", "predictor"):
        state |= linear(f"{mlp}.linear1", f"{mlp}.linear2") | norm(f"{mlp}.bn1")
    return state


def soco(body: State, fpn: State) -> dict[str, Any]:
    options = argparse.Namespace(model="SoCo_FPN", start_level=0, num_outs=4)
    return {"opt": options, "model": under("module.", soco_state(body, fpn)), "optimizer": optimizer(), "epoch": 100}


def soco_ema(body: State, fpn: State) -> dict[str, Any]:
    return {"opt": argparse.Namespace(), "model_ema": soco_state(body, fpn), "epoch": 100}


def soco_c4(body: State, fpn: State) -> dict[str, Any]:
    state = under("encoder.", body) | under("encoder_k.", blank(body))
    for mlp in ("projector", "projector_k", "predictor"):
        state |= linear(f"{mlp}.linear1", f"{mlp}.linear2") | norm(f"{mlp}.bn1")
    return {"opt": argparse.Namespace(model="SoCo_C4"), "model": under("module.", state), "epoch": 100}


def soco_converted(body: State, fpn: State) -> dict[str, Any]:
    head = fillers(f"box_head.conv{i}.weight" for i in range(1, 5)) | linear("box_head.fc1")
    return {"model": caffe(body) | detectron2_fpn(fpn) | head, "__author__": "Yue", "matching_heuristics": True}


def pixpro(body: State, fpn: State) -> dict[str, Any]:
    state = under("encoder.", body) | under("encoder_k.", blank(body)) | linear("value_transform")
    for mlp in ("projector", "projector_k"):
        state |= linear(f"{mlp}.linear1", f"{mlp}.linear2") | norm(f"{mlp}.bn1")
    return {"opt": argparse.Namespace(lr=1.0), "model": under("module.", state), "optimizer": optimizer(), "epoch": 400}


def swav(body: State, fpn: State) -> dict[str, Any]:
    heads = (
        linear("projection_head.0", "projection_head.3") | norm("projection_head.1") | fillers(["prototypes.weight"])
    )
    return under("module.", body | heads)


def dino_state(body: State) -> State:
    head = linear("head.mlp.0", "head.mlp.2", "head.mlp.4")
    return under("backbone.", body) | head | fillers(["head.last_layer.weight_g", "head.last_layer.weight_v"])


def dino(body: State, fpn: State) -> dict[str, Any]:
    student, teacher = under("module.", dino_state(blank(body))), under("module.", dino_state(body))
    loss = fillers(["center"])
    return {"student": student, "teacher": teacher, "args": argparse.Namespace(arch="resnet50"), "dino_loss": loss}


def ccop(body: State, fpn: State) -> dict[str, Any]:
    backbone = under("bottom_up.", caffe(body)) | detectron2_fpn(fpn)
    state = under("backbone_q.", backbone) | under("backbone_k.", blank(backbone))
    for neck in ("img_neck_q", "img_neck_k", "roi_neck_q", "roi_neck_k"):
        state |= linear(f"{neck}.mlp.linear_1.0", f"{neck}.mlp.last_linear")
    names = ("img_queue", "roi_queue", "img_queue_ptr", "roi_queue_ptr", "pixel_mean", "pixel_std", "iter")
    return {"meta": {"epoch": 800, "iter": 369600}, "state_dict": state | fillers(names), "optimizer": optimizer()}


def ccop_detector(body: State, fpn: State) -> dict[str, Any]:
    return {"model": without_counters(under("backbone.", under("bottom_up.", caffe(body)) | detectron2_fpn(fpn)))}


def ccop_classifier(body: State, fpn: State) -> dict[str, Any]:
    return {"model": without_counters(caffe(body))}


def ccop_c5(body: State, fpn: State) -> dict[str, Any]:
    found = {("roi_heads." if key.startswith("res5") else "backbone.") + key: v for key, v in caffe(body).items()}
    return {"model": without_counters(found)}


def moco_converted(body: State, fpn: State) -> dict[str, Any]:
    heads = linear("stem.fc.0", "stem.fc.2")
    return {"model": caffe(body) | heads, "__author__": "MOCO", "matching_heuristics": True}


def detectron2_trained(body: State, fpn: State) -> dict[str, Any]:
    state = ccop_detector(body, fpn)["model"]
    state |= linear(
        "proposal_generator.rpn_head.conv", "roi_heads.box_predictor.cls_score", "roi_heads.mask_head.mask_fcn1"
    )
    return {"model": state | fillers(["pixel_mean", "pixel_std"]), "optimizer": optimizer(), "iteration": 89999}


def detectron2_c4_trained(body: State, fpn: State) -> dict[str, Any]:
    state = ccop_c5(body, fpn)["model"] | linear(
        "proposal_generator.rpn_head.conv", "roi_heads.box_predictor.cls_score"
    )
    return {"model": state | without_counters(norm("roi_heads.res5.norm")), "iteration": 23999}


def detectron2_zoo(body: State, fpn: State) -> dict[str, Any]:
    plain = linear(*(f"backbone.fpn_{kind}{level}" for kind in ("lateral", "output") for level in range(2, 6)))
    return {"model": without_counters(under("backbone.bottom_up.", caffe(body))) | plain, "__author__": "Detectron2"}


def mmdetection(body: State, fpn: State) -> dict[str, Any]:
    heads = linear("rpn_head.rpn_conv", "roi_head.bbox_head.fc_cls")
    return {"meta": {}, "state_dict": under("backbone.", body) | under("neck.", mm_fpn(fpn)) | heads}


def mmdetection_plain(body: State, fpn: State) -> dict[str, Any]:
    neck = linear(*(f"neck.{kind}.{i}.conv" for kind in ("lateral_convs", "fpn_convs") for i in range(4)))
    return {"meta": {}, "state_dict": under("backbone.", body) | neck}


def torchvision_classifier(body: State, fpn: State) -> dict[str, Any]:
    return body | linear("fc")


def torchvision_pyramid(body: State, fpn: State) -> dict[str, Any]:
    return under("body.", body) | under("fpn.", fpn)


def torchvision_detector(body: State, fpn: State) -> dict[str, Any]:
    plain = linear(*(f"backbone.fpn.{kind}.{i}.0" for kind in ("inner_blocks", "layer_blocks") for i in range(4)))
    return under("backbone.body.", body) | plain | linear("rpn.head.cls_logits", "roi_heads.box_head.fc6")


def lightning(body: State, fpn: State) -> dict[str, Any]:
    network = under("network.", under("backbone.", body) | under("fpn.", fpn))
    heads = linear("image_head.hidden", "image_head.output", "box_head.hidden", "box_head.output")
    state = under("objective.query.", network | heads) | under("objective.key.", blank(network) | heads)
    state |= fillers(["objective.step", "objective.image_queue.keys", "objective.image_queue.pointer"])
    return {"epoch": 1, "global_step": 20, "pytorch-lightning_version": "2.6.0", "state_dict": state, "loops": {}}


def canonical(body: State, fpn: State) -> dict[str, Any]:
    return under("backbone.", body) | under("fpn.", fpn)


def canonical_backbone(body: State, fpn: State) -> dict[str, Any]:
    return under("backbone.", body)


def compiled(body: State, fpn: State) -> dict[str, Any]:
    return under("_orig_mod.", canonical(body, fpn))


def moco_v3(body: State, fpn: State) -> dict[str, Any]:
    head = linear("fc.0", "fc.3") | norm("fc.1", "fc.4")
    state = under("module.base_encoder.", body | head) | under("module.momentum_encoder.", blank(body) | head)
    state |= under("module.predictor.", fillers(["0.weight", "3.weight"]) | norm("1"))
    return {"epoch": 1000, "arch": "resnet50", "state_dict": state, "optimizer": optimizer(), "scaler": {"scale": 1.0}}


def simsiam(body: State, fpn: State) -> dict[str, Any]:
    head = fillers(["fc.0.weight", "fc.3.weight"]) | norm("fc.1", "fc.4", "fc.7") | linear("fc.6")
    state = under("module.encoder.", body | head) | under("module.predictor.", linear("3") | norm("1"))
    return {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": optimizer()}


def byol_pytorch(body: State, fpn: State) -> dict[str, Any]:
    online = under("online_encoder.net.", body | linear("fc")) | under("online_encoder.projector.", linear("0", "3"))
    target = under("target_encoder.net.", blank(body) | linear("fc")) | under("target_encoder.projector.", linear("0"))
    return under("net.", body | linear("fc")) | online | target | under("online_predictor.", linear("0", "3"))


def byol(body: State, fpn: State) -> dict[str, Any]:
    tree = byol_pytorch(body, fpn)
    return {key: value for key, value in tree.items() if not key.startswith("net.")}


def byol_files(body: State, fpn: State) -> dict[str, Any]:
    head = linear("projetion.net.0", "projetion.net.3")
    online, target = under("encoder.", numbered(body)) | head, under("encoder.", numbered(blank(body))) | head
    return {"online_network_state_dict": online, "target_network_state_dict": target, "optimizer_state_dict": {}}


def solo_learn(body: State, fpn: State) -> dict[str, Any]:
    state = under("backbone.", body) | under("momentum_backbone.", blank(body)) | linear("classifier", "projector.0")
    state |= linear("momentum_projector.0") | fillers(["queue", "queue_ptr"])
    return {
        "epoch": 399,
        "pytorch-lightning_version": "1.9.5",
        "state_dict": state,
        "hyper_parameters": {"cfg": collections.OrderedDict(method="mocov2plus")},
        "optimizer_states": [optimizer()],
    }


def lightly_moco(body: State, fpn: State) -> dict[str, Any]:
    state = under("backbone.", numbered(body)) | under("backbone_momentum.", numbered(blank(body)))
    for head in ("projection_head", "projection_head_momentum"):
        state |= linear(f"{head}.layers.0", f"{head}.layers.2")
    return {"epoch": 99, "pytorch-lightning_version": "2.1.0", "state_dict": state, "loops": {}, "callbacks": {}}


def lightly_dino(body: State, fpn: State) -> dict[str, Any]:
    state = under("student_backbone.", numbered(blank(body))) | under("teacher_backbone.", numbered(body))
    return {"state_dict": state | linear("student_head.layers.0", "teacher_head.layers.0"), "hyper_parameters": {}}


def lightly_train(body: State, fpn: State) -> dict[str, Any]:
    wrapped = "embedding_model.wrapped_model._features."
    state = under(f"teacher_{wrapped}", numbered(body)) | under(f"student_{wrapped}", numbered(blank(body)))
    return {"state_dict": state | linear("student_projection_head.layers.0"), "global_step": 10}


def numbered_children(body: State, fpn: State) -> dict[str, Any]:
    return numbered(body)


def vissl(body: State, fpn: State) -> dict[str, Any]:
    trunk = under("_feature_blocks.", body)
    model = {"trunk": trunk, "heads": linear("0.clf.0", "0.clf.2")}
    return {"phase_idx": 200, "iteration": 4, "classy_state_dict": {"base_model": {"model": model}, "train": True}}


def vissl_flat(body: State, fpn: State) -> dict[str, Any]:
    return {"model_state_dict": under("trunk._feature_blocks.", body) | linear("heads.0.clf.0")}


def mmengine(body: State, fpn: State) -> dict[str, Any]:
    state = under("backbone.", body) | linear("neck.fc0", "head.predictor.fc0") | norm("neck.bn0")
    state |= under("target_net.module.0.", blank(body)) | fillers(["target_net.steps"])
    return {"meta": {"mmengine_version": "0.8", "seed": 0}, "state_dict": state, "optimizer": optimizer()}


def mmengine_ema(body: State, fpn: State) -> dict[str, Any]:
    ema = under("module.backbone.", blank(body)) | fillers(["steps"])
    return {"meta": {}, "ema_state_dict": ema, "state_dict": under("backbone.", body) | linear("head.fc")}


def timm_training(body: State, fpn: State) -> dict[str, Any]:
    state, ema = under("module.", body | linear("fc")), blank(body) | linear("fc")
    return {"epoch": 1, "arch": "resnet50", "state_dict": state, "state_dict_ema": ema, "args": argparse.Namespace()}


def torchvision_training(body: State, fpn: State) -> dict[str, Any]:
    ema = {"n_averaged": torch.tensor(3)} | under("module.", blank(body) | linear("fc"))
    return {"model_ema": ema, "model": body | linear("fc"), "optimizer": optimizer(), "epoch": 90}


def compiled_inside(body: State, fpn: State) -> dict[str, Any]:
    inside = {(f"_orig_mod.{key}" if key.startswith("layer") else key): value for key, value in body.items()}
    return {"state_dict": under("backbone.", inside) | linear("head")}


def compiled_moco(body: State, fpn: State) -> dict[str, Any]:
    state = under("module._orig_mod.encoder_q.module._orig_mod.", body | linear("fc"))
    return {"state_dict": state | under("module._orig_mod.encoder_k.module._orig_mod.", blank(body) | linear("fc"))}


def deeply_wrapped(body: State, fpn: State) -> dict[str, Any]:
    return {"run": [{"trainer": {"model_state_dict": under("model.student_net.backbone.", body)}}], "step": 3}


def modules_by_name(body: State, fpn: State) -> dict[str, Any]:
    stem = {"conv1": part(body, "conv1"), "bn1": part(body, "bn1")}
    return {"net": stem | {f"layer{stage}": part(body, f"layer{stage}") for stage in range(1, 5)}}


def trunk(body: State, fpn: State) -> dict[str, Any]:
    return {"teacher": under("module.student.backbone.", body) | linear("module.student.head.mlp.0")}


def detectron2_wrapped(body: State, fpn: State) -> dict[str, Any]:
    return {"model": under("student.backbone.bottom_up.", caffe(body)) | linear("student.roi_heads.box_head.fc1")}


def transformers(body: State, fpn: State) -> dict[str, Any]:
    return under("resnet.", hugging_face(body)) | linear("classifier.1")


def msra(body: State, fpn: State) -> dict[str, Any]:
    """Detectron's R-50.pkl: Caffe2's names, norms folded into scale and shift, some zero biases."""
    state = blobs(body)
    state |= {"conv1_b": torch.zeros(64), "pred_w": filler(2, 2), "pred_b": filler(2), "conv1_w_momentum": filler(2)}
    return {"blobs": state, "lr": 0.1}


def caffe2_model(body: State, fpn: State) -> dict[str, Any]:
    return {"model": blobs(body), "__author__": "someone", "matching_heuristics": True}


Layout = Callable[[State, State], dict[str, Any]]

# layout -> (reported format, whether a pyramid is read, whether any tensors are unused)
LAYOUTS: dict[Layout, tuple[str, bool, bool]] = {
    moco: ("moco", False, True),
    moco_v1: ("moco", False, True),
    openselfsup_moco: ("openselfsup", False, True),
    densecl: ("openselfsup", False, True),
    orl: ("openselfsup", False, True),
    mmselfsup_moco: ("openselfsup", False, True),
    extracted: ("torchvision", False, False),
    slotcon: ("slotcon", False, True),
    soco: ("soco", True, True),
    soco_ema: ("soco", True, True),
    soco_c4: ("pixpro", False, True),
    soco_converted: ("detectron2-backbone", True, True),
    pixpro: ("pixpro", False, True),
    swav: ("swav", False, True),
    dino: ("dino", False, True),
    ccop: ("ccop", True, True),
    ccop_detector: ("detectron2", True, False),
    ccop_classifier: ("detectron2-backbone", False, False),
    ccop_c5: ("detectron2-c4", False, False),
    moco_converted: ("detectron2-backbone", False, True),
    detectron2_trained: ("detectron2", True, True),
    detectron2_c4_trained: ("detectron2-c4", False, True),
    detectron2_zoo: ("detectron2", False, True),
    mmdetection: ("mmdetection", True, True),
    mmdetection_plain: ("mmdetection", False, True),
    torchvision_classifier: ("torchvision", False, True),
    torchvision_pyramid: ("torchvision", True, False),
    torchvision_detector: ("torchvision", False, True),
    lightning: ("lightning", True, True),
    canonical: ("canonical", True, False),
    canonical_backbone: ("canonical", False, False),
    compiled: ("canonical", True, False),
    moco_v3: ("moco-v3", False, True),
    simsiam: ("simsiam", False, True),
    byol_pytorch: ("torchvision", False, True),
    byol: ("byol", False, True),
    byol_files: ("lightly", False, True),
    solo_learn: ("solo-learn", False, True),
    lightly_moco: ("lightly", False, True),
    lightly_dino: ("lightly", False, True),
    lightly_train: ("lightly", False, True),
    numbered_children: ("lightly", False, False),
    vissl: ("vissl", False, False),
    vissl_flat: ("vissl", False, True),
    mmengine: ("openselfsup", False, True),
    mmengine_ema: ("openselfsup", False, True),
    timm_training: ("torchvision", False, True),
    torchvision_training: ("torchvision", False, True),
    compiled_inside: ("openselfsup", False, True),
    compiled_moco: ("moco", False, True),
    deeply_wrapped: ("torchvision", False, False),
    modules_by_name: ("torchvision", False, False),
    trunk: ("torchvision", False, True),
    detectron2_wrapped: ("detectron2", False, True),
    transformers: ("transformers", False, True),
    msra: ("caffe2", False, True),
    caffe2_model: ("caffe2", False, False),
}

PICKLED = (soco_converted, ccop_detector, ccop_classifier, ccop_c5, moco_converted, detectron2_zoo, caffe2_model)
"""Layouts that Detectron2 reads from `.pkl` files."""
