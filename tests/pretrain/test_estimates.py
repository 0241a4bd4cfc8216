import dataclasses
from pathlib import Path

import pytest
from ccop_pretrain import estimates
from ccop_pretrain.estimates import Cost, Power, Rates, checkpoints, energy, proposals_cost, run_cost, shortages, size

RATES = Rates(
    cores=8,
    gpu=True,
    search_seconds=0.1,
    search_memory=1,
    search_disk=1,
    boxes=10,
    start_seconds=0,
    step_seconds=1,
    run_memory=100,
    device_memory=5,
    checkpoint_disk=1,
    export_disk=1,
    feature_seconds=0.1,
    feature_memory=7,
    feature_dim=1,
)


def test_gpus_share_a_machine_and_other_devices_are_machines() -> None:
    options = {"boxes": False, "save_every": 500, "scaling": 0.5}
    gpus = run_cost(RATES, 10, 3600, 4, Power(10, 100), **options)
    assert gpus.seconds == 7200
    assert gpus.memory == 4 * (100 + 10 * 80)
    assert gpus.kwh == pytest.approx(2 * (8 * 10 + 4 * 100) / 1000)
    machines = run_cost(dataclasses.replace(RATES, gpu=False), 10, 3600, 4, Power(10, 100), **options)
    assert machines.memory == 100 + 10 * 80
    assert machines.kwh == pytest.approx(2 * 4 * 8 * 10 / 1000)
    assert run_cost(RATES, 10, 3600, 1, Power(), **options).seconds == 3600


def test_the_search_starts_once_and_is_shared_by_the_cores() -> None:
    cost = proposals_cost(dataclasses.replace(RATES, search_start=2), 40, 4, Power(10))
    assert cost.seconds == pytest.approx(2 + 40 * 0.1 / 4)
    assert cost.memory == 5


@pytest.mark.parametrize(("base", "workers", "memory"), [(10, 4, 10 + 4), (10, 1, 11), (0, 1, 1), (10, 9, 10 + 9)])
def test_each_worker_of_a_search_needs_memory_beside_the_main_process(base: int, workers: int, memory: int) -> None:
    cost = proposals_cost(dataclasses.replace(RATES, search_base=base), 40, workers, Power(10))
    assert cost.memory == memory
    assert cost.seconds == pytest.approx(40 * 0.1 / min(workers, 8))


@pytest.mark.parametrize(("steps", "every", "most"), [(10, 500, 1), (501, 500, 2), (5000, 500, 3)])
def test_checkpoints_on_the_disk(steps: int, every: int, most: int) -> None:
    assert checkpoints(steps, every) == most


def test_shortages_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "total_memory", lambda: 1000)
    monkeypatch.setattr(estimates, "free_disk", lambda folder: 1000)
    enough = Cost(1, 1000, 1000, 500, 1)
    assert shortages({"a": enough, "b": enough}, tmp_path, 1000) == []
    memory, gpu, disk = shortages({"a": Cost(1, 1001, 1001, 1001, 1)}, tmp_path, 1000)
    assert "--batch-size" in memory
    assert "--micro-batches" in gpu
    assert str(tmp_path) in disk


def test_memory_and_disk_of_this_machine(tmp_path: Path) -> None:
    assert estimates.total_memory() > 1 << 28
    assert estimates.free_disk(tmp_path / "not" / "there") > 0


def test_sizes_and_energies() -> None:
    assert [size(count) for count in (1500, 310e6, 4.2e9, 1e12)] == ["1.5 kB", "310 MB", "4.2 GB", "1 TB"]
    assert [energy(kwh) for kwh in (3.2, 0.015)] == ["3.2 kWh", "15 Wh"]
