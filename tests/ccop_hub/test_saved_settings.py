from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from ccop_hub.errors import UserError
from ccop_hub.saved_settings import differences, in_current_names, plain, read_settings, save_settings


@dataclass(frozen=True)
class Saved:
    data: Path
    lr: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    names: list[str] = field(default_factory=list)
    workers: int = 0


def test_plain_values() -> None:
    assert plain({1: (Path("a"), None, 2.5)}) == {"1": ["a", None, 2.5]}


def test_saved_settings_read_back(tmp_path: Path) -> None:
    save_settings(Saved(Path("d")), tmp_path / "new" / "settings.yaml")
    read = read_settings(tmp_path / "new" / "settings.yaml")
    assert read == {"data": "d", "lr": 0.1, "sizes": [1, 2], "names": [], "workers": 0}
    assert differences(read, Saved(Path("d")), ()) == []


def test_differences_name_both_values_and_skip_what_may_differ() -> None:
    before = {"data": "d", "lr": 0.2, "workers": 4}
    assert differences(before, Saved(Path("d"), names=["x"]), {"workers"}) == [
        "lr (0.2 there, 0.1 now)",
        "names ([] there, ['x'] now)",
    ]


def test_one_folder_by_two_paths_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert differences({"data": str(tmp_path / "d")}, Saved(tmp_path / "d" / ".." / "d"), ()) == []
    assert differences({"data": str(tmp_path / "d")}, Saved(tmp_path), ()) != []


def test_old_names() -> None:
    old = {"arch": "resnet18", "gpus": 2, "checkpoint_period": 5, "precision": "16-mixed", "device": "cuda"}
    current = {"backbone": "resnet18", "devices": 2, "save_every": 5, "precision": "fp16", "accelerator": "cuda"}
    assert in_current_names(old) == current
    assert in_current_names({"jobs": 3, "workers": 1}) == {"workers": 1}


@pytest.mark.parametrize("content", ["[1", "- 1", "text", "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.yaml").write_text(content)
    with pytest.raises(UserError, match=r"settings\.yaml.*--overwrite"):
        read_settings(tmp_path / "settings.yaml")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"arch": "x"}))
    assert read_settings(tmp_path / "settings.yaml") == {"backbone": "x"}
