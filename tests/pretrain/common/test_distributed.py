"""Tests with real processes over gloo, which run `two_processes.py`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ccop_pretrain.common.distributed import BatchShuffle, gather_rows, rank, world_size
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.settings import ObjectiveSettings
from torch.testing import assert_close

Ranks = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What both processes return, by check; they are started only once."""
    folder = tmp_path_factory.mktemp("two_processes")
    script = Path(__file__).with_name("two_processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, folder / "rendezvous", str(index), folder / f"{index}.pt"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for index in range(2)
    ]
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    saved = [torch.load(folder / f"{index}.pt") for index in range(2)]
    return {check: [each[check] for each in saved] for check in saved[0]}


class TestOneProcess:
    def test_everything_is_the_identity_and_draws_nothing(self) -> None:
        assert (rank(), world_size()) == (0, 1)
        rows = torch.randn(3, 2)
        assert gather_rows(rows) is rows
        torch.manual_seed(0)
        shuffle = BatchShuffle(2, rows.device)
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(0))
        moved, counts = shuffle.exchange_boxes(rows, [1, 2])
        assert moved is rows
        assert counts == [1, 2]
        assert shuffle.exchange_images(rows) is rows
        assert shuffle.restore(rows, None) == (rows, None)


class TestCollectives:
    def test_rows_of_unequal_number_come_in_the_order_of_ranks(self, ranks: Ranks) -> None:
        gathered = ranks["gathering"]
        assert [(each["rank"], each["world"]) for each in gathered] == [(0, 2), (1, 2)]
        for each in gathered:
            assert each["rows"].tolist() == [[0, 1], [2, 3], [4, 5], [10, 11]]
            assert each["one_side"].tolist() == [[0, 1], [2, 3], [4, 5]]
            assert each["nothing"].shape == (0, 2)

    def test_shuffling_moves_images_with_their_rows_and_restoring_brings_them_home(self, ranks: Ranks) -> None:
        shuffled = ranks["shuffling"]
        permutation = torch.randperm(5, generator=torch.Generator().manual_seed(0))
        everyone = torch.cat([each["owner"] for each in shuffled])
        assert torch.cat([each["images"] for each in shuffled]).tolist() == everyone[permutation].tolist()
        assert [len(each["images"]) for each in shuffled] == [3, 2]
        for each in shuffled:
            assert each["rows"].tolist() == each["images"].repeat_interleave(torch.tensor(each["counts"])).tolist()
            assert each["home_images"].tolist() == each["home_images_alone"].tolist() == each["owner"].tolist()
            assert each["home_rows"].tolist() == each["own_rows"].tolist()

    def test_each_process_draws_as_often_from_its_own_generator(self, ranks: Ranks) -> None:
        for index, each in enumerate(ranks["shuffling"]):
            generator = torch.Generator().manual_seed(index)
            torch.randperm(5, generator=generator)
            assert each["drawn"] == torch.rand(1, generator=generator)


class TestTraining:
    @pytest.mark.parametrize("check", ["one_rank_without_boxes", "unequal_batches", "mocov2"])
    def test_gradients_are_the_mean_and_the_processes_stay_alike(self, check: str, ranks: Ranks) -> None:
        first, second = ranks[check]
        for mine, other in zip(first["steps"], second["steps"], strict=True):
            assert mine["local"].keys() == other["local"].keys() == mine["averaged"].keys()
            for name, averaged in mine["averaged"].items():
                assert_close(averaged, other["averaged"][name], rtol=0, atol=0)
                assert_close(averaged, (mine["local"][name] + other["local"][name]) / 2)
        for side in ("query", "key"):
            assert_close(first[side], second[side], rtol=0, atol=0)
        shared = [name for name in first["state"] if "queue" in name or name == "step"]
        assert len(shared) >= 3
        for name in shared:
            assert_close(first["state"][name], second["state"][name], rtol=0, atol=0)

    def test_a_rank_without_boxes_learns_boxes_from_the_other(self, ranks: Ranks) -> None:
        first, second = ranks["one_rank_without_boxes"]
        name = "box_head.output.weight"
        assert second["steps"][0]["losses"]["box"] == second["steps"][0]["losses"]["intra"] == 0
        assert second["steps"][0]["local"][name].abs().max() == 0
        assert_close(second["steps"][0]["averaged"][name], first["steps"][0]["local"][name] / 2)
        assert int(second["state"]["box_queue.pointer"]) == 10

    def test_bn_statistics_are_each_process_own(self, ranks: Ranks) -> None:
        first, second = ranks["mocov2"]
        name = "query.network.backbone.bn1.running_mean"
        assert not torch.allclose(first["state"][name], second["state"][name])

    def test_two_processes_are_one_at_the_double_batch_where_nothing_depends_on_the_share(self, ranks: Ranks) -> None:
        both = ranks["double_batch"]
        small = ObjectiveSettings(image_queue=10, box_queue=16, hidden_dim=16, embedding_dim=8, jitters=0)
        model = ContrastivePretraining(small, "test_resnet", 10, 64).eval()
        model.load_state_dict(both[0]["start"])
        one = ViewBatch(
            **{name: torch.cat([each["batch"][name] for each in both]) for name in ("query_images", "key_images")},
            **{name: both[0]["batch"][name] + both[1]["batch"][name] for name in ("query_boxes", "key_boxes")},
        )
        model.begin_step()
        output = model(one)
        output.loss.backward()
        model.end_step([output], model.totals(one))
        for name, value in output.losses.items():
            assert value.item() == pytest.approx((both[0]["losses"][name] + both[1]["losses"][name]) / 2, rel=1e-5)
        for name, parameter in model.query.named_parameters():
            assert_close(both[0]["gradients"][name], parameter.grad, rtol=1e-3, atol=1e-5)
        for name, value in model.state_dict().items():
            assert_close(both[1]["state"][name], value, rtol=1e-4, atol=1e-6)
