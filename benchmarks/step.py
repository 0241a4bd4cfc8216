"""Compare a training step on a CPU with the authors' formulation, with MoCo v2, and with another version of the code.

    python benchmarks/step.py --out RESULT.json [--baseline TREE]

Every variant runs in its own process; the steps alternate, so that all meet the same machine. Without a GPU, the script
also counts what would keep one waiting: values that the host reads from the device, operators, graph breaks and, with
several processes, collectives. `--baseline` is a checkout of another version (`git worktree add TREE COMMIT`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import facts
from variants import HERE, Variant, random_boxes, ratios, summary, use_tree

VARIANTS = ("ccop", "mocov2", "authors", "baseline-ccop", "baseline-mocov2")
RATIOS = (
    ("ccop", "authors"),
    ("ccop", "mocov2"),
    ("ccop", "baseline-ccop"),
    ("ccop", "baseline-mocov2"),
    ("mocov2", "baseline-mocov2"),
    ("baseline-ccop", "authors"),
    ("baseline-ccop", "baseline-mocov2"),
)
EXPECTED = {
    "ccop / authors": "at most 0.80: RoIAlign and its gradient over contiguous channels, only valid jitters, one pass "
    "per parameter in the update and in the moving average; 0.86 before",
    "ccop / mocov2": "at most 1.7; 1.85 before. The pyramid's convolutions alone are 0.7 of a ResNet-50's",
    "waits": "1 on one GPU (are the losses finite?), at most 10 with eight processes; 36 and about 95 more before",
    "graph breaks": "at most 2; 29 before",
}


def main() -> None:
    """Run the variants by turns, then write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--baseline", type=Path, help="checkout of another version to compare with")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--boxes", type=int, default=20, help="boxes per image")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each variant; 0 only counts")
    parser.add_argument(
        "--no-graphs", action="store_true", help="do not count torch.compile's graphs, which takes longest"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--processes", type=int, nargs="*", default=[2, 8], help="group sizes to count collectives for")
    parser.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as by default, in every variant but the authors' and the baseline's",
    )
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of CCOP and MoCo v2")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--group", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given)
        return
    chosen = [name for name in given.variants if given.baseline or not name.startswith("baseline")]
    workers = {name: Variant("step.py", [*sys.argv[1:], "--worker", name]) for name in chosen}
    counts = {name: worker.ask("count") for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(given.rounds + 1):
        for name, worker in workers.items():
            seconds = worker.ask("step")
            if turn:
                times[name].append(seconds)
    for worker in workers.values():
        worker.stop()
    groups = {
        name: {str(size): count_group(name, size) for size in given.processes}
        for name in chosen
        if name.endswith("ccop")
    }
    result = {
        "expected": EXPECTED,
        "settings": {
            key: value
            for key, value in vars(given).items()
            if key not in ("out", "worker", "group", "baseline", "no_graphs", "variants")
        },
        "seconds": {name: summary(values) for name, values in times.items()} if given.rounds else {},
        "ratios": ratios(times, RATIOS),
        "counts": counts,
        "counts with several processes": groups,
        "machine": facts("torch", "torchvision", "timm"),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")


def count_group(variant: str, size: int) -> dict[str, Any]:
    """Count waits and collectives of a step in each of `size` processes; returns those of the first."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        common = [*sys.argv[1:], "--worker", variant, "--group", meeting]
        group = [Variant("step.py", [*common, str(rank), str(size)]) for rank in range(size)]
        answers = [process.stop() for process in group]
    counted: dict[str, Any] = json.loads(answers[0])
    return counted


def work(given: argparse.Namespace) -> None:
    """Answer the commands `count` and `step`, or take part in a group."""
    use_tree(given.baseline if given.worker.startswith("baseline") else HERE.parent)
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import torch

    torch.set_num_threads(given.threads)
    if given.group:
        print(json.dumps(run_in_group(given)), flush=True)
        return
    step, model = build(given)
    # What else the machine does slows threads that wait for each other; a single one has its own processor time.
    clock = time.process_time if given.threads == 1 else time.perf_counter
    for line in sys.stdin:
        if line == "stop\n":
            return
        before = clock()
        answer: Any = count(given, step, model) if line == "count\n" else step() or clock() - before
        print(json.dumps(answer), flush=True)


def build(given: argparse.Namespace) -> tuple[Callable[[], None], Any]:
    """Build the model and the step of a variant, from normalised images to updated weights."""
    import torch
    from ccop_pretrain.method.batch import ViewBatch
    from ccop_pretrain.settings import RunSettings
    from ccop_pretrain.training.divergence import require_finite
    from ccop_pretrain.training.schedule import Schedule
    from ccop_pretrain.training.step import PretrainingModule

    authors = given.worker == "authors"
    settings = RunSettings(
        Path(),
        Path(),
        proposals=Path(),
        objective="mocov2" if given.worker.endswith("mocov2") else "ccop",
        backbone=given.backbone,
        image_size=given.image_size,
        batch_size=given.batch,
        steps=1000,
        channels_last=given.channels_last and given.worker in ("ccop", "mocov2"),
    )
    module = PretrainingModule(settings, Schedule.of(settings, 100 * given.batch)).train()
    model = module.objective
    model.step.fill_(500)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, given.batch, 3, given.image_size, given.image_size, generator=generator)
    if settings.channels_last:
        images = torch.stack([each.contiguous(memory_format=torch.channels_last) for each in images])
    boxes = [[random_boxes(given.boxes, given.image_size, generator) for _ in range(given.batch)] for _ in range(2)]
    batch = ViewBatch(images[0], images[1], boxes[0], boxes[1], list(range(given.batch)))
    if authors:
        from tests.parity.formulation import AuthorsStep

        formulation = AuthorsStep(model)
        trained = [parameter for parameter in model.query.parameters() if parameter.requires_grad]
        plain = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)

        def authors_step() -> None:
            plain.zero_grad()
            sum(formulation.forward(batch).values()).backward()
            formulation.enqueue()
            plain.step()

        return authors_step, model
    optimiser = module.configure_optimizers()["optimizer"]
    model.given_batch = batch

    def step() -> None:
        optimiser.zero_grad()
        model.begin_step()
        totals = model.totals(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
            output = model(batch, totals)
        output.loss.backward()
        result = model.end_step([output], totals, monitor=False)
        require_finite(1, {**result.losses, "sum": result.loss}, batch.indices)
        optimiser.step()

    return step, model


def count(given: argparse.Namespace, step: Callable[[], None], model: Any) -> dict[str, Any]:
    """Count waits, operators and graph breaks; the authors' formulation is only timed."""
    from torch.utils.flop_counter import FlopCounterMode

    step()
    with FlopCounterMode(display=False) as operations:
        step()
    floating = {"floating-point operations": operations.get_total_flops()}
    if given.worker == "authors":
        return floating
    waits, operators = count_waits(given, step, model)
    return floating | waits | {"operators": operators, **({} if given.no_graphs else graphs(model, model.given_batch))}


def count_waits(given: argparse.Namespace, step: Callable[[], None], model: Any) -> tuple[dict[str, Any], int]:
    """Run one step; return how often it waits for the device, in all and by operator, and its number of operators."""
    from waits import WaitCounter

    batch = model.given_batch
    device = [*model.parameters(), *model.buffers(), batch.query_images, batch.key_images]
    if given.worker.startswith("baseline"):
        # Boxes used to be on the GPU.
        device += [*batch.query_boxes, *batch.key_boxes]
    with WaitCounter(device) as counter:
        step()
    waits = {"waits": sum(counter.waits.values()), "waits by operator": dict(counter.waits)}
    return waits, counter.dispatched


def graphs(model: Any, batch: Any) -> dict[str, int]:
    """Count the graphs that torch.compile makes of the whole objective, and the breaks that it reports."""
    import torch

    torch._dynamo.reset()
    found = torch._dynamo.explain(model.forward)(batch, model.totals(batch))
    return {"graphs": int(found.graph_count), "graph breaks": len(found.break_reasons)}


def run_in_group(given: argparse.Namespace) -> dict[str, Any]:
    """Count waits and collectives of one of several processes, on a small network."""
    import torch.distributed as dist
    from torch import Tensor
    from torch.utils._pytree import tree_leaves
    from waits import mark

    meeting, rank, size = given.group[0], int(given.group[1]), int(given.group[2])
    given.backbone, given.image_size, given.batch, given.boxes, given.threads = "test_resnet", 64, 4, 3, 1
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    collectives: Counter[str] = Counter()

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            collectives[name] += 1
            result = original(*arguments, **named)
            for value in tree_leaves((arguments, named)):
                if isinstance(value, Tensor):
                    mark(value)
            return result

        return call

    for name in ("all_gather", "all_gather_into_tensor", "all_reduce", "all_to_all_single", "broadcast"):
        setattr(dist, name, counted(name, getattr(dist, name)))
    step, model = build(given)
    step()
    collectives.clear()
    waits, _ = count_waits(given, step, model)
    dist.destroy_process_group()
    return waits | {
        "collectives": sum(collectives.values()),
        "collectives by name": dict(collectives),
    }


if __name__ == "__main__":
    main()
