"""Every file is opened for reading by a module that limits what it may be; no other code opens one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ccop_hub", "pretrain", "eval")

READERS = {
    *("json.load", "json.loads", "pickle.load", "pickle.loads", "yaml.load", "yaml.safe_load", "yaml.full_load"),
    *(
        "np.load",
        "np.fromfile",
        "np.memmap",
        "open_memmap",
        "np.loadtxt",
        "np.genfromtxt",
        "torch.load",
        "torch.jit.load",
    ),
    *("Image.open", "cv2.imread", "plt.imread", "tarfile.open", "zipfile.ZipFile", "mmap.mmap", "safe_open"),
    *("load_file", "load_sft", "pq.read_table", "pq.read_metadata", "pq.ParquetFile", "pq.read_schema", "io.open"),
    *("ElementTree.parse", "ElementTree.iterparse", "csv.reader", "tomllib.load", "os.open", "open"),
    *("hashlib.file_digest", "shutil.copyfileobj"),
}
"""Calls that read a file or a document."""

METHODS = {"read_text", "read_bytes", "open"}
"""Methods of `Path` that read a file; `open` unless its mode only writes."""

ALLOWED = {
    # The borders themselves: each limits the size, the depth, the types, or all of them.
    ("ccop_hub/regular_files.py", "json.loads"): "the border",
    ("ccop_hub/regular_files.py", "os.open"): "the border",
    ("ccop_hub/images/decoding.py", "Image.open"): "the border, with a list of formats",
    ("ccop_hub/formats/training_state.py", "torch.load"): "only tensors and plain values, from an opened file",
    ("ccop_hub/formats/torch_files.py", "zipfile.ZipFile"): "after `open_regular`",
    ("ccop_hub/formats/torch_files.py", "mmap.mmap"): "an opened file",
    ("ccop_hub/formats/safe_reading.py", "np.load"): "after `open_regular`, without pickles and bounded",
    ("ccop_hub/formats/safe_reading.py", "safe_open"): "after `open_regular`",
    ("ccop_hub/formats/outline.py", "safe_open"): "after `open_regular`",
    ("ccop_hub/files.py", "hashlib.file_digest"): "an opened file",
    ("eval/detection/coco_data.py", "hashlib.file_digest"): "an opened file",
    ("eval/frozen/features.py", "open_memmap"): "after `open_regular`; opens neither archives nor pickles",
    ("ccop_hub/image_sources/tar_index.py", "tarfile.open"): "an opened file",
    ("ccop_hub/proposals/shards.py", "pq.ParquetFile"): "bytes of a regular file of limited size",
    ("ccop_hub/proposals/shards.py", "pq.read_metadata"): "an opened file of limited size",
    ("pretrain/training/checkpoints.py", "zipfile.ZipFile"): "an opened file",
    ("pretrain/training/metrics_file.py", "csv.reader"): "an opened file, with limited rows",
    # Files that this process has just written, and the project's own installation.
    ("ccop_hub/files.py", ".open"): "flushes and copies its own temporary files",
    ("ccop_hub/console/program.py", "os.open"): "the null device, for writing",
    ("ccop_hub/console/command.py", ".open"): "the settings that the project names",
    ("pretrain/proposals/exchange.py", "np.fromfile"): "its own temporary files",
    ("eval/detection/engine.py", ".read_bytes"): "the sources of the installed Detectron2",
    ("eval/detection/engine.py", ".read_text"): "pip's record of the installed Detectron2",
    ("eval/detection/engine.py", "json.loads"): "pip's record of the installed Detectron2",
    ("eval/detection/sdist_backend.py", ".read_bytes"): "the sources that pip builds",
    ("eval/detection/sdist_backend.py", ".read_text"): "the sources that pip builds",
    ("eval/detection/sdist_backend.py", "zipfile.ZipFile"): "writes the wheel",
    ("ccop_hub/files.py", ".read_text"): "the kernel's files",
    ("pretrain/common/process_memory.py", ".read_text"): "the kernel's files",
    ("pretrain/estimates.py", ".read_text"): "the kernel's files",
    # Methods of the same name on other objects.
    ("pretrain/planning/sample.py", ".read_bytes"): "`StoredImage.read_bytes`",
    ("pretrain/planning/search_rates.py", "pq.read_metadata"): "its own temporary file",
    ("pretrain/planning/step_rates.py", ".open"): "`ImageListing.open`",
    ("ccop_hub/sources/download.py", ".open"): "an address; the file is opened for writing",
    ("ccop_hub/image_sources/hf_datasets.py", ".read_bytes"): "`StoredImage.read_bytes`",
    ("ccop_hub/image_sources/stored_images.py", ".read_bytes"): "`StoredImage.read_bytes`",
    ("pretrain/proposals/ledger.py", ".read_bytes"): "`StoredImage.read_bytes`",
    ("pretrain/proposals/search.py", ".read_bytes"): "`StoredImage.read_bytes`",
    ("pretrain/look/inspection.py", ".open"): "`ImageListing.open`",
    ("pretrain/views/listing.py", ".open"): "`ProposalStore.open` and `ImageListing.open`",
    ("ccop_hub/embedding/boxes.py", ".open"): "`ProposalStore.open`",
    ("ccop_hub/embedding/output.py", ".open"): "an archive's member, for writing",
    ("ccop_hub/embedding/output.py", "zipfile.ZipFile"): "writes the archive",
    ("ccop_hub/embedding/output.py", "np.memmap"): "its own temporary file",
    ("ccop_hub/image_sources/coco_boxes.py", ".read_bytes"): "`StoredImage.read_bytes`",
    ("ccop_hub/locks.py", ".open"): "its own lock file",
}
"""(file, call) -> why it is safe."""


def reading_calls(source: str) -> Iterator[str]:
    """Calls in a module that may read a file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in READERS:
            if name != "open" or not _only_writes(node, 1):
                yield name
        elif method in METHODS and (method != "open" or not _only_writes(node, 0)):
            yield f".{method}"


def _only_writes(call: ast.Call, place: int) -> bool:
    """Whether the mode of a call of `open` neither reads nor updates."""
    modes = [word.value for word in call.keywords if word.arg == "mode"] or call.args[place : place + 1]
    mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else "r"
    return isinstance(mode, str) and not set(mode) & {"r", "+"}


def test_files_are_opened_for_reading_only_by_the_borders() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), call)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for call in reading_calls(path.read_text(encoding="utf-8"))
    }
    assert sorted(found - ALLOWED.keys()) == [], "read the file through ccop_hub.regular_files or ccop_hub.images"
    assert sorted(ALLOWED.keys() - found) == [], "no longer needed"


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("Path('a').read_text()", ".read_text"),
        ("path.open()", ".open"),
        ("path.open('rb')", ".open"),
        ("open('a', 'r+')", "open"),
        ("np.load(file)", "np.load"),
        ("Image.open(path)", "Image.open"),
        ("path.open('wb')", None),
        ("open('a', mode='w')", None),
        ("read_text(path)", None),
    ],
)
def test_calls_that_read_are_found(source: str, call: str | None) -> None:
    assert list(reading_calls(source)) == ([call] if call else [])
