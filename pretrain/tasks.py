"""The tasks behind the commands and Python functions of `ccop-pretrain`.

Each task imports its dependencies when called, so that `--help` and imports stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import InspectSettings, PlanSettings, ProposalSettings, RunSettings, SceneSettings

if TYPE_CHECKING:
    from .look.inspection import Inspection
    from .planning.run import Plan
    from .proposals.check import CheckReport
    from .proposals.run import ProposalsResult
    from .scenes.run import ScenesResult
    from .training.run import RunResult


def scenes(settings: SceneSettings) -> ScenesResult:
    """Draw a synthetic data set."""
    from .scenes.run import run

    return run(settings)


def proposals(settings: ProposalSettings) -> ProposalsResult | CheckReport:
    """Search images for object proposals, or check existing ones."""
    from .proposals.run import run

    return run(settings)


def inspect(settings: InspectSettings) -> Inspection:
    """Draw and count the views and boxes of a run."""
    from ccop_hub.stopping import stoppable

    from .look.inspection import run

    with stoppable():
        return run(settings)


def pretrain(settings: RunSettings) -> RunResult:
    """Pre-train a network."""
    from .views.listing import open_listing

    # Before torch is imported, which takes seconds and a gigabyte.
    listing = open_listing(settings)
    from .training.run import run

    return run(settings, listing)


def plan(settings: PlanSettings) -> Plan:
    """Estimate what a project will need."""
    from .planning.run import run

    return run(settings)
