"""Measure a pre-training step on a GPU: CCOP, MoCo v2, a supervised ResNet and another version of the code, by turns.

    python benchmarks/pretrain_gpu.py --out RESULT.json --pieces throughput waits [--baseline TREE]

Batches are synthetic and already on the GPU, so that neither disks nor data loaders count. Each piece takes less than 9
minutes on an H100; pieces that are run later are added to the same file:

- throughput: images a second and peak memory, the variants alternating;
- waits: synchronising calls a step, by torch's own detection, and their places;
- profile: kernel launches a step, and the share of the step in which the GPU works;
- augmentation: its share of the step;
- compile: images a second with and without torch.compile of the encoders, and its warm-up;
- floor: the bytes that the layers must move at the measured bandwidth.

Needs torch, torchvision and timm. Where nothing can be installed, carry wheels of pydantic, pydantic-core,
annotated-types and typing-inspection; for a `--baseline` from before colour jitter of our own, also of kornia and
kornia-rs. `--device cpu` with a small network tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import facts
from variants import HERE, Variant, random_boxes, ratios, summary, use_tree

VARIANTS = ("ccop", "mocov2", "supervised", "baseline-ccop", "baseline-mocov2")
PIECES = ("throughput", "waits", "profile", "augmentation", "compile", "floor")
RATIOS = (
    ("ccop", "mocov2"),
    ("ccop", "supervised"),
    ("mocov2", "supervised"),
    ("baseline-ccop", "ccop"),
    ("baseline-mocov2", "mocov2"),
)
EXPECTED = {
    "baseline-ccop / ccop": "at least 1.6 at batch 256",
    "ccop / mocov2": "at most 1.5",
    "waits": "1; at most 2",
    "busy share": "at least 0.95",
    "augmentation share": "at most 0.05",
    "compile": "measured once before, at batch 128: 947 images/s with and 964 without, after 79 s of warm-up",
}
WARM_UP = 4
"""Steps before the first measurement, in which cuDNN chooses its algorithms and memory is allocated."""


def main() -> None:
    """Run the pieces, then update one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", nargs="+", choices=PIECES, default=list(PIECES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--baseline", type=Path, help="checkout of another version to compare with")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--boxes", type=int, default=15, help="boxes per image, on average")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--layout", choices=("channels_last", "contiguous"), default="channels_last")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each variant")
    parser.add_argument("--steps", type=int, default=10, help="steps in each measurement")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given)
        return
    result: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    hidden = ("out", "baseline", "worker", "compiled", "pieces", "variants")
    settings = {key: value for key, value in vars(given).items() if key not in hidden}
    if result and result["settings"] != settings:
        raise SystemExit(f"{given.out} was measured with other settings: give another --out")
    result |= {"expected": EXPECTED, "settings": settings, "machine": gpu_facts()}
    chosen = [name for name in given.variants if given.baseline or not name.startswith("baseline")]
    measure(given, chosen, result)
    if "compile" in given.pieces:
        result["compile"] = compare_compiled(given)
    given.out.write_text(json.dumps(result, indent=2) + "\n")


def gpu_facts() -> dict[str, Any]:
    """Facts of the machine and its GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {**facts("torch", "torchvision", "timm"), "gpus": gpus}


def measure(given: argparse.Namespace, chosen: list[str], result: dict[str, Any]) -> None:
    """Run all pieces but `compile` in one process per variant, and add them to the result."""
    pieces = [piece for piece in given.pieces if piece != "compile"]
    if not pieces:
        return
    workers = {name: Variant("pretrain_gpu.py", [*sys.argv[1:], "--worker", name]) for name in chosen}
    for worker in workers.values():
        worker.ask("warm-up")
    if "throughput" in pieces:
        times: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(given.rounds):
            for name, worker in workers.items():
                times[name].append(worker.ask("steps"))
        result["seconds per step"] = {name: summary(values) for name, values in times.items()}
        result["images per second"] = {
            name: given.batch / values["median"] for name, values in result["seconds per step"].items()
        }
        result["peak memory bytes"] = {name: worker.ask("memory") for name, worker in workers.items()}
        result["ratios"] = ratios(times, RATIOS)
    for piece in pieces:
        if piece != "throughput":
            result[piece] = {name: worker.ask(piece) for name, worker in workers.items()}
    for worker in workers.values():
        worker.stop()


def compare_compiled(given: argparse.Namespace) -> dict[str, Any]:
    """Alternate steps of CCOP with and without compiled encoders."""
    arguments = [*sys.argv[1:], "--worker", "ccop"]
    workers = {
        "plain": Variant("pretrain_gpu.py", arguments),
        "compiled": Variant("pretrain_gpu.py", [*arguments, "--compiled"]),
    }
    warm_up = {name: worker.ask("warm-up") for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(given.rounds):
        for name, worker in workers.items():
            times[name].append(worker.ask("steps"))
    for worker in workers.values():
        worker.stop()
    return {
        "warm-up seconds": warm_up,
        "images per second": {name: given.batch / summary(values)["median"] for name, values in times.items()},
        "ratios": ratios(times, [("plain", "compiled")]),
    }


def work(given: argparse.Namespace) -> None:
    """Answer the commands of the parent process, one line each."""
    use_tree(given.baseline if given.worker.startswith("baseline") else HERE.parent)
    session = Session(given)
    for line in sys.stdin:
        command = line.strip()
        if command == "stop":
            return
        print(json.dumps(session.answers[command]()), flush=True)


class Session:
    """A variant that is ready to take steps, and what can be asked about it."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch

        self.given = given
        self.device = torch.device(given.device)
        self.generator = torch.Generator().manual_seed(0)
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = False
        self.pixels = [
            torch.randint(0, 256, (given.batch, 3, given.image_size, given.image_size), dtype=torch.uint8).to(
                self.device
            )
            for _ in range(2)
        ]
        self.modules: list[Any] = []
        self.augment: Callable[[], Any] | None = None
        self.step = self.supervised() if given.worker == "supervised" else self.contrastive()
        self.answers: dict[str, Callable[[], Any]] = {
            "warm-up": self.warm_up,
            "steps": self.steps,
            "memory": self.memory,
            "waits": self.waits,
            "profile": self.profile,
            "augmentation": self.augmentation,
            "floor": self.floor,
        }

    def autocast(self) -> Any:
        """The context of the networks' precision."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16) if self.given.precision == "bf16" else nullcontext()

    def layout(self, value: Any) -> Any:
        """Bring images or a module into the chosen memory layout."""
        import torch

        if self.given.layout != "channels_last":
            return value
        if isinstance(value, torch.nn.Module):
            return value.to(memory_format=torch.channels_last)
        return value.contiguous(memory_format=torch.channels_last)

    def optimiser(self, parameters: Any) -> Any:
        """The optimiser of the variant's version."""
        import torch

        fused = None if self.given.worker.startswith("baseline") else True
        return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=fused)

    def supervised(self) -> Callable[[], None]:
        """A classifier's step, without augmentation: the least that training this backbone takes."""
        import timm
        import torch

        network = self.layout(timm.create_model(self.given.backbone, num_classes=1000).to(self.device).train())
        self.modules = [network]
        optimiser = self.optimiser(network.parameters())
        images = self.layout(self.pixels[0].float() / 128 - 1)
        labels = torch.randint(0, 1000, (self.given.batch,)).to(self.device)

        def step() -> None:
            optimiser.zero_grad()
            with self.autocast():
                loss = torch.nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimiser.step()

        return step

    def contrastive(self) -> Callable[[], None]:
        """A step of CCOP or MoCo v2, from uint8 images to updated weights, as the training loop takes it."""
        import torch
        from ccop_pretrain.method.batch import ViewBatch
        from ccop_pretrain.method.objective import ContrastivePretraining
        from ccop_pretrain.settings import ObjectiveSettings, ViewSettings
        from ccop_pretrain.views.photometric import PhotometricAugmentation

        given, old = self.given, self.given.worker.startswith("baseline")
        objective = "mocov2" if given.worker.endswith("mocov2") else "ccop"
        model = ContrastivePretraining(
            ObjectiveSettings(objective=objective), given.backbone, total_steps=1000, image_size=given.image_size
        )
        model = self.layout(model.to(self.device).train())
        model.step.fill_(500)
        self.modules = [model.query, model.key]
        if given.compiled:
            for encoder in self.modules:
                encoder.compile()
        augmentation = PhotometricAugmentation(ViewSettings(image_size=given.image_size)).to(self.device)
        optimiser = self.optimiser([each for each in model.parameters() if each.requires_grad])
        # Different numbers of boxes at every step, as in a run.
        counts = torch.randint(0, 2 * given.boxes + 1, (8, given.batch), generator=self.generator).tolist()
        pools = [
            [[random_boxes(each, given.image_size, self.generator) for each in row] for _ in range(2)] for row in counts
        ]
        if old:
            pools = [[[boxes.to(self.device) for boxes in view] for view in pool] for pool in pools]
        taken = 0

        def augment() -> list[Any]:
            return [self.layout(augmentation(pixels)) for pixels in self.pixels]

        def step() -> None:
            nonlocal taken
            taken += 1
            torch.manual_seed(taken)
            optimiser.zero_grad()
            pool = pools[taken % len(pools)]
            images = augment()
            batch = replace(ViewBatch(*self.pixels, *pool), query_images=images[0], key_images=images[1])
            with self.autocast():
                model.begin_step()
                totals = model.totals(batch)
                output = model(batch, totals)
            output.loss.backward()
            result = model.end_step([output], totals, monitor=False)
            if not bool(torch.stack([*result.losses.values(), result.loss]).isfinite().all()):
                raise SystemExit("the loss is not finite")
            optimiser.step()

        self.augment = augment
        return step

    def synchronise(self) -> None:
        """Wait for the device."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, action: Callable[[], Any], times: int) -> float:
        """Mean seconds of an action, the device's work included."""
        self.synchronise()
        before = time.perf_counter()
        for _ in range(times):
            action()
        self.synchronise()
        return (time.perf_counter() - before) / times

    def rest(self) -> None:
        """Give the memory that is not in use back, for the other variants."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def warm_up(self) -> float:
        """Seconds of the first steps."""
        seconds = self.timed(self.step, WARM_UP) * WARM_UP
        self.rest()
        return seconds

    def steps(self) -> float:
        """Seconds per step, after one that allocates the memory again."""
        self.step()
        seconds = self.timed(self.step, self.given.steps)
        self.rest()
        return seconds

    def memory(self) -> int | None:
        """Peak memory in bytes."""
        import torch

        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None

    def waits(self) -> dict[str, Any]:
        """Count synchronising calls of a step."""
        import torch

        if self.device.type != "cuda":
            from waits import WaitCounter

            tensors = [value for module in self.modules for value in (*module.parameters(), *module.buffers())]
            with WaitCounter([*tensors, *self.pixels]) as counter:
                self.step()
            return {"calls": sum(counter.waits.values()), "places": dict(counter.waits)}
        self.step()
        self.synchronise()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places = Counter(
            f"{Path(each.filename).name}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)
        )
        return {"calls": sum(places.values()), "places": dict(places)}

    def profile(self) -> dict[str, Any]:
        """Count kernels, and compare the time in which the GPU works with that of an unprofiled step."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        seconds = self.timed(self.step, 3)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        with profile(activities=activities) as profiler:
            self.step()
            self.synchronise()
        on_gpu = [each for each in profiler.events() if each.device_type == torch.autograd.DeviceType.CUDA]
        spans = sorted((each.time_range.start, each.time_range.end) for each in on_gpu)
        busy, reached = 0.0, float("-inf")
        for begin, end in spans:
            busy += max(end - max(begin, reached), 0.0)
            reached = max(reached, end)
        longest = Counter[str]()
        for each in on_gpu:
            longest[each.name[:90]] += int(each.time_range.elapsed_us())
        operators = sum(each.name.startswith("aten::") for each in profiler.events())
        self.rest()
        return {
            "kernels": len(on_gpu),
            "operators": operators,
            "seconds": seconds,
            "busy seconds": busy / 1e6,
            "busy share": min(busy / 1e6 / seconds, 1.0) if on_gpu else None,
            "longest kernels, microseconds": dict(longest.most_common(15)),
        }

    def augmentation(self) -> dict[str, float] | None:
        """Share of the augmentation in the step's time."""
        if self.augment is None:
            return None
        alone, whole = self.timed(self.augment, self.given.steps), self.timed(self.step, self.given.steps)
        self.rest()
        return {"seconds": alone, "share": alone / whole}

    def floor(self) -> dict[str, float]:
        """Least time to move what convolutions and batch norms read and write, at the measured bandwidth.

        Forward, a convolution reads its input and writes its output, batch norm reads its input twice and writes its
        output; the backward pass moves twice as much. Activation functions and additions count as fused.
        """
        import torch

        width = 2 if self.given.precision == "bf16" else 4
        moved = [0.0]

        def count(module: Any, inputs: Any, output: Any) -> None:
            reads = 2 if isinstance(module, torch.nn.BatchNorm2d) else 1
            passes = 3 if any(each.requires_grad for each in module.parameters()) else 1
            moved[0] += passes * width * (reads * inputs[0].numel() + output.numel())

        hooks = [
            each.register_forward_hook(count)
            for module in self.modules
            for each in module.modules()
            if isinstance(each, torch.nn.Conv2d | torch.nn.BatchNorm2d)
        ]
        self.step()
        for hook in hooks:
            hook.remove()
        block = torch.empty(
            (1 << 30) if self.device.type == "cuda" else (1 << 24), dtype=torch.uint8, device=self.device
        )
        other = torch.empty_like(block)
        seconds = self.timed(lambda: other.copy_(block), 10)
        bandwidth = 2 * block.numel() / seconds
        self.rest()
        return {"bytes": moved[0], "bytes per second": bandwidth, "seconds": moved[0] / bandwidth}


if __name__ == "__main__":
    main()
