"""`ccop-pretrain plan`: estimate what proposals, pre-training and evaluation will need."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ccop_hub.cores import available_cores
from ccop_hub.errors import UserError, one_line
from ccop_hub.notebook import summary_html
from ccop_hub.progress import announce, duration
from ccop_hub.regular_files import read_json
from ccop_hub.stopping import stoppable
from ccop_hub.validation import SettingError

from ..common.parallel import in_own_process
from ..estimates import (
    Cost,
    Power,
    Rates,
    energy,
    evaluation_cost,
    proposals_cost,
    run_cost,
    shortages,
    size,
    total_memory,
)
from ..settings import PlanSettings, RunSettings
from ..training.schedule import Schedule
from .feature_rates import FeatureJob, measure_features
from .sample import write_sample
from .search_rates import SearchJob, measure_search
from .step_rates import StepJob, measure_steps, planned_run

_MOST_JSON = 1 << 20  # bytes


@dataclass(frozen=True)
class Plan:
    """An estimate.

    Attributes:
        costs: cost of each part: proposals (unless no loss uses boxes), pre-training, evaluation.
        steps: number of training steps.
        rates: the rates that the estimate is computed from.
        warnings: resources of this machine that the plan exceeds.
    """

    costs: dict[str, Cost]
    steps: int
    rates: Rates
    warnings: list[str]

    @property
    def total(self) -> Cost:
        """All parts one after the other."""
        parts = self.costs.values()
        return Cost(
            sum(cost.seconds for cost in parts),
            max(cost.memory for cost in parts),
            max(cost.device_memory for cost in parts),
            sum(cost.disk for cost in parts),
            sum(cost.kwh for cost in parts),
        )

    def document(self) -> dict[str, Any]:
        """Return everything as JSON values; the file is accepted by `rates`."""
        costs = {**self.costs, "total": self.total}
        return {
            "costs": {name: dataclasses.asdict(cost) for name, cost in costs.items()},
            "steps": self.steps,
            "rates": dataclasses.asdict(self.rates),
            "warnings": self.warnings,
        }

    def _repr_html_(self) -> str:
        rows = {name: ", ".join(described(cost)) for name, cost in {**self.costs, "total": self.total}.items()}
        return summary_html("plan", rows)


def run(settings: PlanSettings) -> Plan:
    """Estimate a project, from rates that are measured here or given.

    Raises:
        UserError: the rates or the sample cannot be read, the batch does not fit the images, or a step of this size
            does not fit into this machine's memory.
        Stopped: a stop signal was received.
    """
    schedule = Schedule.of(settings, settings.images)
    with stoppable():
        rates = measured_rates(settings) if settings.rates is None else read_rates(settings.rates)
    power = Power(settings.core_watts, settings.device_watts)
    costs = {}
    if settings.reads_boxes:
        costs["proposals"] = proposals_cost(rates, settings.images, settings.workers or rates.cores, power)
    costs["pre-training"] = run_cost(
        rates,
        settings.images,
        schedule.steps,
        settings.devices,
        power,
        boxes=settings.reads_boxes,
        save_every=RunSettings.save_every,
        scaling=settings.scaling,
    )
    labelled = settings.images if settings.eval_images is None else settings.eval_images
    if labelled:
        costs["evaluation"] = evaluation_cost(
            rates, labelled, settings.eval_passes, settings.devices, power, settings.scaling
        )
    gpu = torch.cuda.get_device_properties(0).total_memory if rates.gpu and torch.cuda.is_available() else 0
    return Plan(costs, schedule.steps, rates, shortages(costs, settings.out, gpu))


def measured_rates(settings: PlanSettings) -> Rates:
    """Measure all rates on this machine."""
    with tempfile.TemporaryDirectory(prefix="ccop-plan-") as scratch:
        place = Path(scratch)
        images, proposals = place / "images", place / "proposals"
        announce("preparing a sample of images")
        write_sample(settings, images)
        announce("measuring the search for proposals")
        workers = settings.workers or available_cores()
        search = in_own_process(measure_search, SearchJob(images, proposals, workers, time.time()))
        announce("measuring training steps")
        job = planned_run(settings, images, proposals, place / "run")
        steps = in_own_process(measure_steps, StepJob(job, settings.images, time.time()))
        announce("measuring the features of an evaluation")
        features = in_own_process(
            measure_features, FeatureJob(settings.backbone, settings.eval_size, images, steps.gpu)
        )
    found = {**vars(search), **vars(steps), **vars(features)}
    return Rates(cores=available_cores(), **found)


def read_rates(path: Path) -> Rates:
    """Read rates from a JSON file: the output of the command with `--json`, or an object with the fields of `Rates`.

    Raises:
        UserError: the file cannot be read, or is not such a file; the message names the field.
    """
    remedy = "give a file written by ccop-pretrain plan --json"
    names = {field.name for field in dataclasses.fields(Rates)}
    needed = {field.name for field in dataclasses.fields(Rates) if field.default is dataclasses.MISSING}
    try:
        found = read_json(path, _MOST_JSON)
        found = found.get("rates", found)
        missing, unknown = sorted(needed - found.keys()), sorted(found.keys() - names)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read rates from {path} ({one_line(error)}); {remedy}") from None
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown fields ({one_line(', '.join(unknown))})"
        raise UserError(f"{path} {what}; {remedy}")
    try:
        return Rates(**found)
    except SettingError as error:
        said = str(error).replace(f"--{error.field.replace('_', '-')}", error.field, 1)
        raise UserError(f"{path}: {said}") from None


def described(cost: Cost) -> list[str]:
    """Format time, memory, GPU memory, disk space and energy."""
    gpu = size(cost.device_memory) if cost.device_memory else "-"
    return [duration(cost.seconds), size(cost.memory), gpu, size(cost.disk), energy(cost.kwh)]


def report(plan: Plan, settings: PlanSettings) -> None:
    """Print the plan as a table, and what it assumes."""
    from rich.table import Table

    from ccop_hub.console import next_step, table_console

    rates = plan.rates
    table = Table("part", "time", "memory", "GPU memory", "disk", "energy")
    for name, cost in plan.costs.items():
        table.add_row(name, *described(cost))
    table.add_section()
    table.add_row("total", *described(plan.total))
    table_console().print(table)
    device = "GPU" if rates.gpu else f"machine of {rates.cores} cores"
    print(
        f"{settings.images} images, {plan.steps} steps of {settings.batch_size} on {settings.devices} {device}"
        f"{'s' if settings.devices > 1 else ''}: {rates.step_seconds:.3g} s per step, {rates.search_seconds:.3g} s of "
        f"one core per search, {rates.boxes:.1f} boxes per image"
    )
    gpu = f", {settings.device_watts:g} W per GPU" if rates.gpu else ""
    print(f"energy at {settings.core_watts:g} W per core{gpu}; this machine has {size(total_memory())} of memory")
    for warning in plan.warnings:
        print(f"warning: {warning}")
    next_step("ccop-pretrain", "proposals", "IMAGES", "--out", "PROPOSALS")
