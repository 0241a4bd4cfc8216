"""`ccop-eval detection`: fine-tune a detector from pre-trained weights and score it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from torch import nn

from ccop_hub.errors import UserError
from ccop_hub.files import make_folder, write_atomically
from ccop_hub.locks import folder_lock
from ccop_hub.markup import visible

from ..results.result import RESULT_FILE, Result
from ..settings import DetectionSettings
from .engine import load_engine
from .plan import AGAINST_FOLDER, FINAL_CHECKPOINT, SHEET_FILE, Plan, check_output, make_plan, open_output
from .processes import start
from .record import OUTCOME_FILE, make_result


def run(settings: DetectionSettings) -> Result | None:
    """Train and score a detector from one or two sets of weights.

    Writes `result.json`, a picture sheet, the settings and Detectron2's files to `settings.out`.

    Returns:
        The result; None on all machines except the first.

    Raises:
        UserError: the weights, data, protocol or output folder are invalid, or another process is running in that
            folder.
    """
    plans = [make_plan(settings)]
    if settings.against is not None:
        other = dataclasses.replace(settings, weights=settings.against, against=None, out=settings.out / AGAINST_FOLDER)
        plans.append(make_plan(other))
    if settings.node_rank != 0:
        return _carry_out_all(settings, plans)
    for plan in plans:
        check_output(plan)
    make_folder(settings.out)
    with folder_lock(settings.out):
        return _carry_out_all(settings, plans)


def _carry_out_all(settings: DetectionSettings, plans: list[Plan]) -> Result | None:
    finished = None if settings.overwrite or settings.eval_only else _finished(settings)
    if finished is not None:
        print(f"{settings.out} contains this run, finished: nothing to do (--overwrite starts over)")
        return finished
    results = [_carry_out(plan) for plan in plans]
    own = results[0]
    if own is None or settings.against is None:
        return own
    from .pairing import pair

    assert results[1] is not None
    paired = pair(own, results[1], plans[0], plans[1].folder)
    paired.write(settings.out / RESULT_FILE)
    return paired


def _finished(settings: DetectionSettings) -> Result | None:
    """Return this run's result if the folder contains it."""
    if not (settings.out / RESULT_FILE).exists():
        return None
    result = Result.read(settings.out)
    return result if settings.against is None or result.against is not None else None


def _carry_out(plan: Plan) -> Result | None:
    """Train (unless only scoring) and score according to a plan, in the number of processes it asks for."""
    started = time.monotonic()
    settings = plan.settings
    first_machine = settings.node_rank == 0
    if first_machine:
        open_output(plan)
        print(visible(f"{plan.weights.name}: {settings.protocol} on {plan.data.name}"))
        for note in plan.configuration.notes:
            print(visible(f"note: {note}"))
    # Each new process makes its own plan: a configuration cannot be unpickled before Detectron2 is patched there.
    start(settings, work, settings, plan if settings.processes == 1 else None)
    if not first_machine:
        return None
    result = make_result(plan, time.monotonic() - started)
    from .pictures import write_sheet
    from .trainer import INFERENCE_FOLDER, PREDICTIONS_FILE

    write_sheet(plan.data.val, plan.folder / INFERENCE_FOLDER / PREDICTIONS_FILE, settings.out / SHEET_FILE)
    result.write(settings.out / RESULT_FILE)
    return result


def work(settings: DetectionSettings, plan: Plan | None) -> None:
    """Run one training process; rank 0 writes the outcome to Detectron2's folder.

    Args:
        settings: the run's settings.
        plan: their plan if this process has already made it, else None.
    """
    load_engine()
    plan = plan or make_plan(settings)
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng

    from .progress import logs_in
    from .trainer import TRAINERS
    from .weights_loading import LoadReport, load_weights

    reports: list[LoadReport] = []

    def start_from_weights(model: nn.Module) -> None:
        report = load_weights(model, plan.weights, settings.load)
        if comm.is_main_process():
            print(report.table(), flush=True)
        reports.append(report)

    cfg = plan.configuration.cfg
    seed_all_rng(settings.seed)
    with logs_in(Path(cfg.OUTPUT_DIR)):
        trainer = TRAINERS[plan.configuration.scorer](cfg, start_from_weights)
        trainer.resume_from_checkpoint()
        try:
            scores = _train_and_score(trainer, settings)
        except UserError as error:
            # An error from a data-loading worker arrives as the text of its traceback.
            raise UserError(str(error).strip().splitlines()[-1].rpartition("UserError: ")[2]) from None
    if comm.is_main_process():
        outcome = {"scores": scores, "report": dataclasses.asdict(reports[0]), "started at": trainer.start_iter}
        write_atomically(plan.folder / OUTCOME_FILE, json.dumps(outcome))


def _train_and_score(trainer: Any, settings: DetectionSettings) -> dict[str, Any]:
    """Return the scorer's metrics by kind (`bbox`, `segm`); empty except on rank 0."""
    if settings.eval_only or trainer.start_iter >= trainer.max_iter:
        print("the training is finished: scoring it", flush=True)
        if not (Path(trainer.cfg.OUTPUT_DIR) / FINAL_CHECKPOINT).is_file():
            # The run was stopped after the last step's checkpoint but before the final one was saved.
            trainer.checkpointer.save(Path(FINAL_CHECKPOINT).stem, iteration=trainer.max_iter - 1)
        scores: dict[str, Any] = trainer.test(trainer.cfg, trainer.model)
        return scores
    if trainer.start_iter:
        print(f"resuming after iteration {trainer.start_iter} of {trainer.max_iter}", flush=True)
    try:
        trainer.train()
    except FloatingPointError as error:
        raise UserError(
            f"training diverged: {str(error).splitlines()[0]} use a larger --batch-size or fewer --iterations, and "
            f"see {trainer.cfg.OUTPUT_DIR}/log.txt"
        ) from None
    return dict(trainer._last_eval_results)
