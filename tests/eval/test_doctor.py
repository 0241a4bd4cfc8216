import sys

import pytest
from ccop_eval import doctor
from ccop_eval.cli import main


def test_everything_is_here_and_every_line_says_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    screen = capsys.readouterr().out
    for part in doctor.PARTS:
        assert part.name in screen
    assert "Detectron2" in screen
    assert "createSelectiveSearchSegmentation" in screen
    assert len(screen.splitlines()) <= 24, "one screen"


@pytest.mark.parametrize(
    ("module", "task", "name", "fix"),
    [
        ("cv2", "pretrain", "OpenCV's ximgproc", "pip install --force-reinstall --no-deps opencv-contrib-python"),
        ("pycocotools.mask", "detection", "pycocotools", "pip install 'ccop-hub[eval]'"),
        ("sklearn", "voc-svm", "scikit-learn", "pip install 'ccop-hub[eval]'"),
    ],
)
def test_a_missing_part_is_an_error_for_the_tasks_that_need_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: str,
    task: str,
    name: str,
    fix: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["doctor", f"--task={task}"]) == 1
    screen = capsys.readouterr().out
    lines = screen.splitlines()
    place = next(number for number, line in enumerate(lines) if name in line)
    assert lines[place].startswith("missing")
    assert fix in lines[place + 1]
    assert f"{task}: 1 needed part is missing: {name}" in lines[-2]
    assert lines[-1].startswith(f"next: ccop-eval doctor --task {task}")
    assert main(["doctor", "--task=knn"]) == 0
    assert f"absent  {name}" in capsys.readouterr().out


def test_an_engine_that_is_not_there_is_fixed_by_our_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "detectron2" else found(name))
    assert main(["doctor", "--task=detection"]) == 1
    assert "fix: ccop-eval install-detectron2" in capsys.readouterr().out


def test_an_engine_without_its_packages_is_fixed_by_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ccop_eval.detection import engine

    def lacks() -> None:
        raise ModuleNotFoundError("No module named 'fvcore'", name="fvcore")

    monkeypatch.setattr(engine, "load_engine", lacks)
    assert main(["doctor", "--task=detection"]) == 1
    screen = capsys.readouterr().out
    assert "needs the package 'fvcore'" in screen
    assert "fix: pip install 'ccop-hub[eval]'" in screen


def test_an_engine_that_cannot_be_imported_is_not_installed_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ccop_eval.detection import engine

    def broken() -> None:
        raise ImportError("libc10.so: undefined symbol\nand more")

    monkeypatch.setattr(engine, "load_engine", broken)
    assert main(["doctor", "--task=detection"]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if "Detectron2" in line)
    assert lines[place].endswith("installed, but cannot be imported: libc10.so: undefined symbol")
    assert "fix: pip install 'ccop-hub[eval]'" in lines[place + 1]


def test_another_opencv_is_found_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import types

    plain = types.ModuleType("cv2")
    plain.__version__ = "4.13.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", plain)
    assert main(["doctor", "--task=pretrain"]) == 1
    assert "OpenCV 4.13.0 without the contrib modules" in capsys.readouterr().out


def test_operators_that_compute_wrongly_are_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    import torchvision

    monkeypatch.setattr(torchvision.ops, "nms", lambda *_: torch.tensor([0, 1, 2]))
    assert main(["doctor", "--task=regions"]) == 1
    assert "computes nms or roi_align wrongly" in capsys.readouterr().out


def test_no_gpu_is_told_and_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor", "--task=detection"]) == 0
    assert "absent  GPU" in capsys.readouterr().out
