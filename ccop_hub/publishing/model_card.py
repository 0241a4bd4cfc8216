"""Write the model card of published weights: training, results, usage and limitations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..errors import one_line
from ..formats.checkpoint import Weights
from ..formats.names import layout_of
from ..formats.timm_folder import TIMM_WEIGHTS_FILE
from ..markup import markdown_text, visible
from ..sources.summary import load_call
from .evaluations import Evaluation

_LONGEST_FACT = 500
"""Maximum number of characters of a fact on the card."""

DETECTRON2_FILE = "detectron2.pkl"
DETECTRON2_CONFIG = "detectron2.yaml"

OBJECTIVES = {
    "ccop": (
        "CCOP (Curricular Contrastive Object-level Pre-training, arXiv:2111.13651): MoCo v2 with object-level "
        "contrastive losses over selective-search boxes"
    ),
    "mocov2": "MoCo v2 (arXiv:2003.04297)",
}

_TASK_TYPES = {
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "linear": "image-classification",
    "knn": "image-classification",
}
"""Task in `ccop-eval` -> task on the Hub."""


def model_card(weights: Weights, repo: str, licence: str, evaluations: Sequence[Evaluation]) -> ModelCard:
    """Write the card.

    Args:
        weights: the published weights.
        repo: repository, `ORG/NAME`.
        licence: SPDX id, as spelled on the Hub.
        evaluations: results to show.
    """
    objective = weights.facts.get("objective")
    data = ModelCardData(
        license=licence,
        library_name="timm",
        tags=["ccop-hub", "self-supervised-learning", *([visible(objective)] if objective else []), weights.arch],
        pipeline_tag="image-feature-extraction",
        model_name=repo,
        eval_results=[row for evaluation in evaluations for row in _eval_results(evaluation)] or None,
    )
    sections = [
        _about(weights, repo),
        _training(weights),
        _results(evaluations),
        _loading(weights, repo),
        _limits(weights),
        f"## Licence\n\nThe weights: {licence}.",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _eval_results(evaluation: Evaluation) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=_TASK_TYPES.get(evaluation.task, "image-feature-extraction"),
            task_name=visible(f"{evaluation.task} ({evaluation.protocol})"),
            dataset_type=visible(evaluation.data),
            dataset_name=visible(evaluation.data),
            # The Hub merges results with the same task and data set unless their configs differ.
            dataset_config=visible(evaluation.protocol),
            metric_type=visible(metric),
            metric_name=visible(metric),
            metric_value=round(value, 3),
        )
        for metric, value in evaluation.metrics.items()
    ]


def _about(weights: Weights, repo: str) -> str:
    objective = weights.facts.get("objective")
    by = f" by {OBJECTIVES.get(objective) or _shown(objective)}" if objective else ""
    parts = "backbone and feature pyramid" if "fpn" in weights.parts else "backbone"
    file = _code(Path(weights.source).name)
    return (
        f"# {repo}\n\n"
        f"A {weights.arch} ({parts}), pre-trained without labels{by}.\n\n"
        f"{file} contains the {parts}, `{TIMM_WEIGHTS_FILE}` the backbone for timm and torchvision"
        + (f", `{DETECTRON2_FILE}` the {parts} for Detectron2" if is_plain(weights) else "")
        + f". Digest of {file}: `{weights.digest}`."
    )


def _training(weights: Weights) -> str:
    facts = weights.facts
    dataset = facts.get("dataset", {})
    shown = facts["input"]
    rows = [
        ("data set", dataset.get("name")),
        ("images", dataset.get("images")),
        ("digest of the image list", dataset.get("digest")),
        ("objective", facts.get("objective")),
        ("epochs", facts.get("epochs")),
        ("steps", facts.get("steps")),
        ("batch size", facts.get("batch_size")),
        ("view size, pixels", facts.get("image_size")),
        ("input", f"{shown['channel_order']}, {shown['range']}, mean {shown['mean']}, std {shown['std']}"),
        ("versions", ", ".join(f"{name} {value}" for name, value in facts.get("versions", {}).items()) or None),
        ("created", facts.get("created")),
    ]
    table = "\n".join(f"| {name} | {_shown(value)} |" for name, value in rows if value is not None)
    return f"## Training\n\n| | |\n|---|---|\n{table}\n\nAll settings: `settings.yaml`."


def _results(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return "## Results\n\nNo results were published with these weights."
    rows = []
    for one in evaluations:
        metrics = ", ".join(f"{markdown_text(metric)} {value:.2f}" for metric, value in one.metrics.items())
        data = f"{one.data} ({one.images} images)"
        texts = map(markdown_text, (one.task, one.protocol, data, one.loaded, one.engine, one.seed))
        rows.append(f"| {' | '.join([*texts, metrics])} |")
    notes = [f"- {markdown_text(f'{one.protocol}: {note}')}" for one in evaluations for note in one.notes]
    heading = "| task | protocol | data | loaded | engine | seed | metrics, % |\n|---|---|---|---|---|---|---|\n"
    return "## Results\n\n" + heading + "\n".join(rows) + ("\n\n" + "\n".join(notes) if notes else "")


def _shown(fact: object) -> str:
    """Format a fact, which may have any type and length, as literal text."""
    return markdown_text(one_line(fact, _LONGEST_FACT))


def _code(text: str) -> str:
    return f"`{visible(text).replace('`', chr(39))}`"


def _loading(weights: Weights, repo: str) -> str:
    arch = weights.arch
    blocks = [
        ("ccop-hub", f"import ccop_hub\n\nnetwork = {load_call(weights, f'hf-hub:{repo}')}"),
        ("timm", f'import timm\n\nbackbone = timm.create_model("hf-hub:{repo}", pretrained=True)'),
    ]
    if is_plain(weights):
        fetch = "from huggingface_hub import hf_hub_download\n"
        blocks += [
            (
                "torchvision",
                f"import torch\nimport torchvision\n{fetch}from safetensors.torch import load_file\n\n"
                f"backbone = torchvision.models.{arch}()\nbackbone.fc = torch.nn.Identity()\n"
                f'backbone.load_state_dict(load_file(hf_hub_download("{repo}", "{TIMM_WEIGHTS_FILE}")))',
            ),
            (
                "Detectron2",
                f'{fetch}\ncfg.merge_from_file(hf_hub_download("{repo}", "{DETECTRON2_CONFIG}"))\n'
                f'cfg.MODEL.WEIGHTS = hf_hub_download("{repo}", "{DETECTRON2_FILE}")',
            ),
        ]
    return "## Loading\n\n" + "\n\n".join(f"{name}:\n\n```python\n{code}\n```" for name, code in blocks)


def _limits(weights: Weights) -> str:
    images = weights.facts.get("dataset", {}).get("images")
    seen = f"It was trained on {_shown(images)} images" if images else "Its training images are listed above"
    return (
        "## Limits\n\n"
        f"- {seen}; it may represent other kinds of images poorly.\n"
        "- It is a starting point for training: it has no classifier and makes no predictions by itself.\n"
        "- It carries the biases of its training images, which were not measured.\n"
        "- It expects RGB input with the mean and standard deviation above; with any other its features are wrong."
    )


def is_plain(weights: Weights) -> bool:
    """Whether torchvision and Detectron2 support this ResNet variant."""
    return layout_of(weights.part("backbone")) == weights.arch
