"""One step of two processes matches the authors' code: ShuffleBN, gathered queues, averaged gradients."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from .authors import LOSSES
from .folder import ParityFolder

Ranks = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(parity: ParityFolder, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    for name in ("world2.json", "world2.npz", "model.json", "boxes.npz", "recipe.py"):
        parity.path(name)
    folder = tmp_path_factory.mktemp("world2")
    script = Path(__file__).with_name("world2_process.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, parity.folder, folder / "rendezvous", str(rank), folder / f"{rank}.pt"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module", params=[0, 1], ids=["rank0", "rank1"])
def rank(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def arrays(parity: ParityFolder) -> dict[str, np.ndarray]:
    return parity.npz("world2.npz")


@pytest.fixture
def expected(parity: ParityFolder, rank: int) -> dict[str, Any]:
    return parity.json("world2.json")["ranks"][rank]


def close(actual: torch.Tensor, stored: np.ndarray, atol: float = 1e-6) -> None:
    assert_close(actual.double(), torch.from_numpy(stored).double(), rtol=0, atol=atol)


def test_losses_and_choices(ranks: Ranks, rank: int, expected: dict[str, Any]) -> None:
    for theirs, ours in LOSSES.items():
        assert ranks[rank]["losses"][ours] == pytest.approx(expected["losses64"][theirs], rel=1e-7)
    assert ranks[rank]["choice"].tolist() == expected["min_inds"]


def test_embeddings(ranks: Ranks, rank: int, arrays: dict[str, np.ndarray]) -> None:
    close(ranks[rank]["image_query"], arrays[f"r{rank}_img_q"])
    close(ranks[rank]["image_key"], arrays[f"r{rank}_img_k_shuffled"])
    close(ranks[rank]["box_queries"], arrays[f"r{rank}_roi_q"])


def test_jitters(ranks: Ranks, rank: int, arrays: dict[str, np.ndarray]) -> None:
    ours = ranks[rank]
    close(ours["draws_xy"], arrays[f"r{rank}_draws_xy"], atol=0)
    close(ours["draws_wh"], arrays[f"r{rank}_draws_wh"], atol=0)
    close(ours["boxes"], arrays[f"r{rank}_jit"], atol=4e-5)
    valid = torch.from_numpy(~arrays[f"r{rank}_invalid"])
    assert ours["valid"].tolist() == valid.tolist()
    close(ours["similarity"][valid], arrays[f"r{rank}_sel_sim"][valid.numpy()])


def test_gradients_before_and_after_averaging(ranks: Ranks, rank: int, expected: dict[str, Any]) -> None:
    for kind, theirs in (("gradients", "grad_norm64"), ("averaged", "grad_norm_averaged64")):
        ours = {name: ranks[rank][kind][name] for name in expected[theirs]}
        assert ours == pytest.approx(expected[theirs], rel=1e-6)


def test_queues(
    ranks: Ranks, rank: int, expected: dict[str, Any], arrays: dict[str, np.ndarray], recipe: ModuleType
) -> None:
    assert ranks[rank]["pointers"] == [expected["img_ptr"], expected["roi_ptr"]]
    for queue, initial, name in zip(ranks[rank]["queues"], recipe.queues(), ("img_queue", "roi_queue"), strict=True):
        changed = torch.from_numpy(arrays[f"{name}_changed_cols"])
        close(queue[:, changed], arrays[f"{name}_new"])
        kept = torch.ones(queue.shape[1], dtype=torch.bool).index_fill(0, changed, False)
        assert_close(queue[:, kept], initial[:, kept].double(), rtol=0, atol=0)
