"""`ccop-eval doctor`: one screen that says what works here, and the command that mends what does not."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from ccop_hub.errors import UserError

Task = Literal["all", "detection", "segmentation", "linear", "knn", "voc-svm", "regions", "pretrain"]

_NAMES = 24
"""Width of the column of names."""

_EVAL = "pip install 'ccop-hub[eval]'"
_PRETRAIN = "pip install 'ccop-hub[pretrain]'"
_TORCH = "pip install --upgrade torch torchvision"
_OPENCV = (
    "pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python-headless && "
    "pip install --force-reinstall --no-deps opencv-contrib-python"
)


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """What works on this machine, a line a part; exit code 1 if a part that the task needs is missing.

    Args:
        task: whose parts are needed: one of the evaluations, `pretrain`, or `all`.
    """

    task: Task = "all"


class Missing(Exception):  # noqa: N818 - a finding, not a failure of ours
    """A part is not here, or does not work; the message says what was found instead.

    Args:
        found: a few words.
        mend: what mends it, where that is not what mends the part as a rule.
    """

    def __init__(self, found: str, mend: str | None = None) -> None:
        super().__init__(found)
        self.mend = mend


@dataclass(frozen=True)
class Part:
    """One line of the screen.

    Attributes:
        name: of the part.
        needed_by: tasks that cannot do without it; none where it only makes things faster.
        find: returns what was found, in a few words; raises `Missing` or `ImportError`.
        mend: command that brings the part, or what to do where no command can.
    """

    name: str
    needed_by: tuple[Task, ...]
    find: Callable[[], str]
    mend: str


def run(settings: DoctorSettings) -> int:
    """Print a line a part; returns the exit code."""
    console = Console(soft_wrap=True, highlight=False)
    ill = []
    for part in PARTS:
        needed = settings.task in part.needed_by or (settings.task == "all" and bool(part.needed_by))
        found, mend = _examine(part)
        mark = "[green]ok[/]     " if mend is None else "[red]missing[/]" if needed else "[yellow]absent[/] "
        console.print(f"{mark} {part.name:<{_NAMES}} {_plain(found)}")
        if mend is not None:
            console.print(f"{'':<{_NAMES + 9}}mend: {_plain(mend)}")
        if needed and mend is not None:
            ill.append(part.name)
    if ill:
        console.print(f"\n{settings.task}: {len(ill)} needed parts are missing: {', '.join(ill)}")
        return 1
    console.print(f"\n{settings.task}: everything that is needed is here")
    return 0


def _examine(part: Part) -> tuple[str, str | None]:
    """What was found, and what mends it; None where nothing has to be mended."""
    try:
        return part.find(), None
    except (Missing, ImportError, OSError, RuntimeError, UserError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        return told, (error.mend if isinstance(error, Missing) else None) or part.mend


def _plain(text: str) -> str:
    """The text with brackets that rich would take for markup escaped."""
    return text.replace("[", "\\[")


def _torch() -> str:
    import torch

    threads = torch.get_num_threads()
    return f"{torch.__version__}, {threads} threads"


def _operators() -> str:
    """The compiled operators, which a torch of another version makes unusable: they are called, not looked up."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [8.0, 8.0, 9.0, 9.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    pooled = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), [boxes[:1]], output_size=2)
    if kept != [0, 2] or not torch.equal(pooled, torch.ones_like(pooled)):
        raise Missing(f"torchvision {torchvision.__version__} computes nms or roi_align wrongly")
    return f"torchvision {torchvision.__version__}: nms and roi_align compute"


def _detectron2() -> str:
    from .detection.engine import load_engine

    try:
        engine = load_engine()
    except ModuleNotFoundError as error:
        raise Missing(f"it is here, and needs the package {error.name!r}", _EVAL) from None
    except ImportError as error:
        raise Missing(f"it is here, and cannot be imported: {str(error).splitlines()[0]}", _EVAL) from None
    compiled = "compiled" if engine.compiled else "not compiled, which Mask R-CNN does not need"
    return f"{engine.version}, {compiled}; {engine.where}"


def _ximgproc() -> str:
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise Missing(f"OpenCV {cv2.__version__} without the contrib modules")
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation
    return f"OpenCV {cv2.__version__}: {search.__name__}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise Missing("torch finds no CUDA GPU: everything runs on the processor, slowly")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    torch.ones(8, device="cuda").sum().item()
    return f"{len(names)} x {', '.join(sorted(set(names)))}, CUDA {torch.version.cuda}"


def _nccl() -> str:
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        raise Missing("this torch is built without NCCL: one GPU at a time")
    if not torch.cuda.is_available():
        raise Missing("built in, but without a GPU it cannot be tried")
    numbers: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return ".".join(str(number) for number in numbers)


def _package(module: str, distribution: str) -> Callable[[], str]:
    """A part that is a plain Python package: it is imported."""

    def find() -> str:
        importlib.import_module(module)
        return importlib.metadata.version(distribution)

    return find


_PROBES: tuple[Task, ...] = ("segmentation", "linear", "knn", "voc-svm", "regions")

PARTS = (
    Part("torch", ("detection", "pretrain", *_PROBES), _torch, _TORCH),
    Part("torchvision's operators", ("detection", "regions", "pretrain"), _operators, _TORCH),
    Part("Detectron2", ("detection",), _detectron2, "ccop-eval install-detectron2"),
    Part("pycocotools", ("detection",), _package("pycocotools.mask", "pycocotools"), _EVAL),
    Part("TensorBoard", ("detection",), _package("tensorboard", "tensorboard"), _EVAL),
    Part("lightning", (*_PROBES, "pretrain"), _package("lightning", "lightning"), _EVAL),
    Part("scikit-learn", ("voc-svm",), _package("sklearn", "scikit-learn"), _EVAL),
    Part("cityscapesscripts", ("segmentation",), _package("cityscapesscripts", "cityscapesscripts"), _EVAL),
    Part("OpenCV's ximgproc", ("pretrain",), _ximgproc, _OPENCV),
    Part("kornia", ("pretrain",), _package("kornia", "kornia"), _PRETRAIN),
    Part(
        "GPU", (), _gpu, "nvidia-smi   # then https://pytorch.org/get-started/locally for a torch that fits its driver"
    ),
    Part("NCCL", (), _nccl, "pip install --force-reinstall torch   # on Linux the registry's torch has CUDA and NCCL"),
)
"""Every part, in the order of the screen."""
