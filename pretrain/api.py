"""The Python API of `ccop_pretrain`: each task as a function that takes the fields of its settings."""

from __future__ import annotations

from ccop_hub.front import front

from . import tasks
from .settings import InspectSettings, PlanSettings, ProposalSettings, RunSettings, SceneSettings

draw_scenes = front("draw_scenes", SceneSettings, tasks.scenes, "The set's folder and its number of images by split.")
propose = front(
    "propose",
    ProposalSettings,
    tasks.proposals,
    "The `ProposalsResult`: folder and counts; with `check`, the `CheckReport` of the proposals that are there.",
)
inspect = front(
    "inspect", InspectSettings, tasks.inspect, "The `Inspection`: measures and picture sheets, which a notebook shows."
)
pretrain = front(
    "pretrain",
    RunSettings,
    tasks.pretrain,
    "The `RunResult`: the exported network, the steps done and the last metrics; a notebook shows them with pictures.",
)
plan = front(
    "plan", PlanSettings, tasks.plan, "The `Plan`: the cost of each part and their total, which a notebook shows."
)
