import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from ccop_pretrain.proposals import opencv_search
from ccop_pretrain.proposals.opencv_search import installed_opencv, load_opencv, load_ximgproc

from ccop_hub.errors import UserError


def pretend(monkeypatch: pytest.MonkeyPatch, installed: list[str], cv2: object) -> None:
    def version(name: str) -> str:
        if name in installed:
            return "4.10.0.84"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(opencv_search.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "cv2", cv2)


@pytest.mark.parametrize(
    ("installed", "commands"),
    [
        (["opencv-python"], "`pip uninstall -y opencv-python` and then `pip install opencv-contrib-python`"),
        (
            ["opencv-python-headless"],
            "`pip uninstall -y opencv-python-headless` and then `pip install opencv-contrib-python-headless`",
        ),
        (
            ["opencv-python", "opencv-contrib-python"],
            "`pip uninstall -y opencv-python opencv-contrib-python` and then `pip install opencv-contrib-python`",
        ),
        ([], "`pip install opencv-contrib-python`"),
    ],
)
def test_opencv_without_ximgproc_names_the_commands(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], commands: str
) -> None:
    pretend(monkeypatch, installed, SimpleNamespace(__version__="4.10.0"))
    with pytest.raises(UserError) as raised:
        load_ximgproc()
    assert "OpenCV 4.10.0 here has no ximgproc" in str(raised.value)
    assert "--engine opencv" in str(raised.value)
    assert str(raised.value).endswith(f"run {commands}")
    assert load_opencv().__version__ == "4.10.0"  # all that the other engine needs
    assert installed_opencv() == installed


def test_no_opencv_at_all_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [], None)
    with pytest.raises(UserError, match=r"import OpenCV.*run `pip install opencv-contrib-python`"):
        load_opencv()
