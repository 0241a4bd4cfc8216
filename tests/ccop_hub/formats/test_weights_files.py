"""What a folder or a broken link is refused with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ccop_hub.errors import UserError
from ccop_hub.formats.tensor_checks import require_sound
from ccop_hub.formats.weights_files import find_weights_file, stored_facts
from ccop_hub.sources.location import locate


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors"],
            r"in several files \(model\.safetensors\.in",
        ),
        (["pytorch_model.bin.index.json"], r"in several files \(pytorch_model\.bin\.index\.json\)"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter, not a network"),
        (["refs/main", "snapshots/0a1b/config.json"], r"give a snapshot, such as .*snapshots/0a1b"),
        (["last.ckpt", "best.PTH", "log.txt"], r"contains best\.PTH, last\.ckpt: give the file"),
        (["config.json"], r"contains no backbone_fpn\.safetensors or model\.safetensors"),
    ],
)
def test_folders_without_a_weights_file_are_told_what_they_contain(
    tmp_path: Path, files: list[str], named: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=named):
        find_weights_file(tmp_path)


def test_broken_links_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("../../blobs/0a1b")
    for read in (lambda: find_weights_file(tmp_path), lambda: locate(str(tmp_path / "model.safetensors"))):
        with pytest.raises(UserError, match=r"model\.safetensors is a broken link"):
            read()
    (tmp_path / "config.json").symlink_to("../../blobs/2c3d")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        stored_facts(tmp_path / "model.safetensors", {})


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.uint16])
def test_types_that_torch_hardly_computes_with_are_refused(kind: torch.dtype) -> None:
    with pytest.raises(UserError, match=rf"bn1\.running_var is of type {str(kind)[6:]}"):
        require_sound({"bn1.running_var": torch.ones(4).to(kind)})
    require_sound({"bn1.running_var": torch.ones(4, dtype=torch.float64)})
