"""Write a network as an ONNX model, and compute the features of one in ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..architectures import PYRAMID_STRIDES, BackboneFPN
from ..errors import UserError, one_line
from ..files import make_folder, replacing
from ..optional import needs
from ..regular_files import open_regular, parse_json
from .checkpoint import Weights
from .fingerprint import fingerprint, fixed_input, level_differences, loaded_network

SUFFIX = ".onnx"
OPSET = 18
"""Version of the ONNX operators: read by ONNX Runtime 1.14 and later."""

STAGES = ("res2", "res3", "res4", "res5")
POOLED = "pooled"
METADATA_KEY = "ccop"
"""Key of the facts, as JSON, in the model's metadata."""

TOLERANCE = 1e-4
"""Maximum difference of any feature between PyTorch and ONNX Runtime, relative to the largest feature of its level."""

_CHECKED_SIZES = ((1, 64, 64), (3, 97, 65))
"""(images, height, width) of the inputs on which both are compared; neither is the size of the export."""


@dataclasses.dataclass(frozen=True)
class OnnxModel:
    """An ONNX model that was written.

    Attributes:
        path: the file.
        opset: version of the ONNX operators.
        outputs: number of channels by name of the output.
        largest_difference: maximum difference of any feature between ONNX Runtime and PyTorch.
    """

    path: Path
    opset: int
    outputs: Mapping[str, int]
    largest_difference: float


def available_outputs(weights: Weights) -> list[str]:
    """Return the outputs that a model of these weights can have."""
    return [POOLED, *STAGES, *(PYRAMID_STRIDES if "fpn" in weights.parts else ())]


def write_onnx(weights: Weights, out: Path, outputs: Sequence[str] = ()) -> OnnxModel:
    """Write a network as an ONNX model and compare its features with PyTorch's before the file is kept.

    Input `images`: (N, 3, H, W) float32 RGB, normalised with the mean and std in the metadata; N, H and W are free.
    Outputs: feature maps (N, C, H / stride, W / stride), and `pooled`, the averaged last stage, (N, C).

    Args:
        weights: weights to convert.
        out: file to write.
        outputs: names of the outputs, in order; all available ones if empty.

    Raises:
        UserError: an output is not available, a package is not installed, or the features differ.
    """
    there = available_outputs(weights)
    names = list(dict.fromkeys(outputs)) or there
    if absent := [name for name in names if name not in there]:
        raise UserError(f"{weights.name} has no feature pyramid, so no output {absent[0]}: use {', '.join(there)}")
    with needs("onnx"):
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    network = _Outputs(loaded_network(weights.arch, weights.tensors), names).eval()
    stored = {**weights.facts, "arch": weights.arch, "fingerprint": fingerprint(weights.arch, weights.tensors)}
    make_folder(out.parent)
    with replacing(out) as temporary:
        _export(network, names, temporary, json.dumps(stored, sort_keys=True, default=str))
        difference = _compare(network, names, temporary, out)
    with torch.no_grad():
        channels = {name: value.shape[1] for name, value in zip(names, network(fixed_input()), strict=True)}
    return OnnxModel(out, OPSET, channels, difference)


def verify_onnx(path: Path) -> tuple[list[str], list[str]]:
    """Compare the features of a model on the fixed input with the fingerprint in its metadata.

    Returns:
        The compared outputs, and the differences, one line each.

    Raises:
        UserError: the file is not an ONNX model, ONNX Runtime is missing, or the model has no fingerprint.
    """
    session = _session(path)
    try:
        stored = parse_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY])["fingerprint"]
        names = [output.name for output in session.get_outputs()]
        found = _run(session, names, fixed_input())
        compared = [name for name in names if name in stored["values"]]
        if not compared and POOLED in names:
            raise UserError(f"{path} has only the output {POOLED}, and the fingerprint has none: nothing to compare")
        return compared, level_differences(stored, {name: found[name] for name in compared})
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(f"{path} has no fingerprint in its metadata: convert the weights again") from None


class _Outputs(nn.Module):
    """A network that returns some of its levels as a tuple."""

    def __init__(self, network: BackboneFPN, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        stages = self.network.stages(images)
        levels = dict(stages)
        if set(self.names) & PYRAMID_STRIDES.keys():
            levels |= self.network.pyramid(stages)
        levels[POOLED] = stages["res5"].mean((2, 3))
        return tuple(levels[name] for name in self.names)


def _export(network: nn.Module, names: Sequence[str], path: Path, facts: str) -> None:
    free = torch.export.Dim.DYNAMIC
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about PyTorch's own exporter
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, 64, 96),),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: free, 2: free, 3: free},),
            input_names=["images"],
            output_names=list(names),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = facts
    program.save(path)


def _compare(network: nn.Module, names: Sequence[str], path: Path, out: Path) -> float:
    session = _session(path)
    largest = 0.0
    for count, height, width in _CHECKED_SIZES:
        images = 2 * torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = dict(zip(names, network(images), strict=True))
        found = _run(session, names, images)
        for name in names:
            difference = float((expected[name] - found[name]).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(expected[name].abs().max())):
                raise UserError(f"{name} differs by {difference:.2g} in ONNX Runtime: {out} was not written")
            largest = max(largest, difference)
    return largest


def _session(path: Path) -> Any:
    with needs("onnx"):
        import onnxruntime
    open_regular(path).close()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise UserError(f"{path} is not an ONNX model that can be run ({one_line(error, 200)})") from None


def _run(session: Any, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    found = session.run(list(names), {session.get_inputs()[0].name: images.numpy()})
    return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}
