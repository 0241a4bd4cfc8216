"""OpenCV's selective search, which the authors used; produces the same boxes as theirs."""

from __future__ import annotations

from importlib import metadata
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ccop_hub.errors import UserError

_WHEEL = "opencv-contrib-python"
_OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
    "opencv-python-rolling",
    "opencv-contrib-python-rolling",
)


def load_opencv() -> Any:
    """Import `cv2`.

    Raises:
        UserError: OpenCV is not installed; the message gives the pip command to install it.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"cannot import OpenCV ({error}); {_remedy()}") from None
    return cv2


def load_ximgproc() -> Any:
    """Import `cv2` with its selective search.

    Raises:
        UserError: OpenCV is not installed, or lacks `ximgproc`; the message gives the fix.
    """
    cv2 = load_opencv()
    segmentation = getattr(getattr(cv2, "ximgproc", None), "segmentation", None)
    if not hasattr(segmentation, "createSelectiveSearchSegmentation"):
        raise UserError(
            f"OpenCV {cv2.__version__} here has no ximgproc, which --engine opencv needs; leave it out, or {_remedy()}"
        )
    return cv2


def installed_opencv() -> list[str]:
    """Return the names of the installed OpenCV distributions, which all write to the same `cv2` folder."""
    found = []
    for name in _OPENCV_WHEELS:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def _remedy() -> str:
    installed = installed_opencv()
    headless = bool(installed) and all("headless" in name for name in installed)
    wanted = f"{_WHEEL}-headless" if headless else _WHEEL
    if not installed:
        return f"run `pip install {wanted}`"
    # Wheels that share a folder overwrite each other's files, so uninstall all of them first.
    return f"run `pip uninstall -y {' '.join(installed)}` and then `pip install {wanted}`"


def search(image: npt.NDArray[np.uint8], mode: Literal["fast", "quality"] = "fast") -> npt.NDArray[np.int32]:
    """Run OpenCV's selective search.

    Args:
        image: uint8 (H, W, 3), RGB. (The search runs on BGR, as in the authors' code.)
        mode: `fast` or `quality`.

    Returns:
        int32 (N, 4), x, y, width, height in pixels, sorted by these four numbers. OpenCV's own order depends on the C
        library's random numbers and varies between calls; the set of boxes does not.
    """
    finder = load_ximgproc().ximgproc.segmentation.createSelectiveSearchSegmentation()
    finder.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    if mode == "fast":
        finder.switchToSelectiveSearchFast()
    else:
        finder.switchToSelectiveSearchQuality()
    found = np.asarray(finder.process(), dtype=np.int32).reshape(-1, 4)
    boxes: npt.NDArray[np.int32] = found[np.lexsort(found.T[::-1])]
    return boxes
