"""`ccop-eval doctor`: check what works on this machine and how to fix what does not."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from ccop_hub.console import next_step
from ccop_hub.errors import UserError
from ccop_hub.markup import visible

from .settings import DoctorSettings, Task

_NAMES = 24
"""Width of the name column."""

_EVAL = "pip install 'ccop-hub[eval]'"
_TORCH = "pip install --upgrade torch torchvision"
_OPENCV = (
    "pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python-headless && "
    "pip install --force-reinstall --no-deps opencv-contrib-python"
)


class Missing(Exception):  # noqa: N818 - a finding, not an error in this program
    """A part is missing or does not work.

    Args:
        found: brief description of what was found instead.
        fix: how to fix it, if the part's default fix does not apply.
    """

    def __init__(self, found: str, fix: str | None = None) -> None:
        super().__init__(found)
        self.fix = fix


@dataclass(frozen=True)
class Part:
    """One checked part, shown as one line.

    Attributes:
        name: the part's name.
        needed_by: tasks that require it; empty if it is only a speed-up.
        find: returns a brief description of what was found; raises `Missing` or `ImportError`.
        fix: command that installs the part, or other instructions.
    """

    name: str
    needed_by: tuple[Task, ...]
    find: Callable[[], str]
    fix: str


@dataclass(frozen=True)
class Finding:
    """The result of checking one part.

    Attributes:
        name: the part's name.
        works: whether it is installed and works.
        needed: whether the chosen task needs it.
        found: brief description.
        fix: command that installs the part, or other instructions; None if it works.
    """

    name: str
    works: bool
    needed: bool
    found: str
    fix: str | None


def run(settings: DoctorSettings) -> list[Finding]:
    """Check every part."""
    findings = []
    for part in PARTS:
        needed = settings.task in part.needed_by or (settings.task == "all" and bool(part.needed_by))
        found, fix = _examine(part)
        findings.append(Finding(part.name, fix is None, needed, found, fix))
    return findings


def missing(findings: Sequence[Finding]) -> list[str]:
    """Names of required parts that do not work."""
    return [finding.name for finding in findings if finding.needed and not finding.works]


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if a required part does not work, else 0."""
    return 1 if missing(findings) else 0


def show(findings: Sequence[Finding], settings: DoctorSettings) -> int:
    """Print one line per part and return the exit code."""
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        mark = "[green]ok[/]     " if finding.works else "[red]missing[/]" if finding.needed else "[yellow]absent[/] "
        console.print(f"{mark} {finding.name:<{_NAMES}} {escape(visible(finding.found))}")
        if finding.fix is not None:
            console.print(f"{'':<{_NAMES + 9}}fix: {escape(visible(finding.fix))}")
    absent = missing(findings)
    if absent:
        parts = "1 needed part is" if len(absent) == 1 else f"{len(absent)} needed parts are"
        console.print(f"\n{settings.task}: {parts} missing: {', '.join(absent)}")
        next_step("ccop-eval", "doctor", "--task", settings.task, note="after the fixes above")
    else:
        console.print(f"\n{settings.task}: everything needed is here")
        next_step(*(("ccop-pretrain", "scenes", "--help") if settings.task == "pretrain" else ("ccop-eval", "demo")))
    return exit_code(findings)


def _examine(part: Part) -> tuple[str, str | None]:
    """Return what was found and how to fix it (None if it works)."""
    try:
        return part.find(), None
    except (Missing, ImportError, OSError, RuntimeError, UserError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        return told, (error.fix if isinstance(error, Missing) else None) or part.fix


def _torch() -> str:
    import torch

    threads = torch.get_num_threads()
    return f"{torch.__version__}, {threads} threads"


def _operators() -> str:
    """Call the compiled operators: built for another torch, they may import but not work."""
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
        raise Missing(f"installed, but needs the package {error.name!r}", _EVAL) from None
    except ImportError as error:
        raise Missing(f"installed, but cannot be imported: {str(error).splitlines()[0]}", _EVAL) from None
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
        raise Missing("torch finds no CUDA GPU: everything runs on the CPU, slowly")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    torch.ones(8, device="cuda").sum().item()
    return f"{len(names)} x {', '.join(sorted(set(names)))}, CUDA {torch.version.cuda}"


def _nccl() -> str:
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        raise Missing("this torch is built without NCCL, so only one GPU can be used")
    if not torch.cuda.is_available():
        raise Missing("built in, but cannot be tried without a GPU")
    numbers: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return ".".join(str(number) for number in numbers)


def _package(module: str, distribution: str) -> Callable[[], str]:
    """Make a check that imports a plain Python package."""

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
    Part(
        "GPU", (), _gpu, "nvidia-smi   # then https://pytorch.org/get-started/locally for a torch that fits its driver"
    ),
    Part("NCCL", (), _nccl, "pip install --force-reinstall torch   # on Linux the registry's torch has CUDA and NCCL"),
)
"""All parts, in display order."""
