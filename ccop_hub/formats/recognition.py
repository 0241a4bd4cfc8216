"""Find the ResNet in a checkpoint by its tensor names, regardless of prefixes and wrappers.

A candidate is a prefix under which the first convolution and the first block of one of `styles.STYLES` exist. It is
accepted if its names match a known ResNet exactly; nothing is guessed from shapes. All other tensors (heads, queues,
optimizers) are reported as unused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UserError, one_line
from ..normalization import CAFFE2_INPUT_FACTS
from ..plain_resnets import COUNTER, LAYOUTS
from .families import FAMILIES, PRIMARY_STATE_KEYS, Family, is_secondary
from .inert_pickle import NotDense
from .names import KeyMismatchError, backbone_names, layout_of
from .state_dicts import StateDict, flattened, pickled_module, state_dicts
from .styles import (
    CAFFE2,
    PYRAMID_STYLES,
    STATISTICS,
    STYLES,
    PyramidStyle,
    Style,
    backbone_table,
    pyramid_table,
)
from .tensor_checks import find_arch, require_sound

if TYPE_CHECKING:
    from torch import Tensor

FROZEN_VARIANCE = 1 - 1e-5
"""Running variance that reduces a norm (epsilon 1e-5) to scale and shift, for Caffe2 files, whose statistics are folded
in; the value of Detectron2's `FrozenBatchNorm2d`."""


MOST_TENSORS = 100_000
MOST_NETWORKS = 32
"""Maximum number of tensors and networks per state dict; a method with two ResNet-152 networks has 2000 tensors."""


@dataclasses.dataclass(frozen=True)
class Identified:
    """A network found in a checkpoint.

    Attributes:
        format: name of the format (`families.FAMILIES`).
        arch: timm name of the backbone.
        tensors: canonical name -> tensor; half precision is converted to float32, which is lossless.
        unused: source names of tensors that belong to neither the backbone nor the pyramid.
        taken: location of the network in the file: keys, then the prefix of its names; empty if it is the whole file.
        others: locations of other complete networks in the file.
        facts: properties implied by the format, such as a different input normalisation.
    """

    format: str
    arch: str
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]
    taken: str = ""
    others: tuple[str, ...] = ()
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A possible network in a checkpoint.

    Attributes:
        state: the state dict.
        style: naming style of the backbone.
        prefix: prefix of the backbone's names, without wrappers.
        layout: the plain ResNet that matches best.
        backbone: timm name -> name in `state`.
        unknown: backbone names that the layout does not have.
        missing: names of the layout that the backbone lacks.
    """

    state: StateDict
    style: Style
    prefix: str
    layout: str
    backbone: dict[str, str]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the names match the layout exactly."""
        return not self.unknown and not self.missing

    @property
    def place(self) -> str:
        """Location for display: keys of the file, and the prefix as written there."""
        return ".".join((*self.state.path, _written(self.state, self.style, self.prefix))).rstrip(".")

    def canonical(self) -> dict[str, str]:
        """Map canonical names of the backbone, and of the pyramid that belongs to it, to names in the state dict.

        Raises:
            KeyMismatchError: the pyramid is incomplete.
        """
        backbone = {f"backbone.{name}": own for name, own in self.backbone.items()}
        return backbone | {f"fpn.{name}": own for name, own in _pyramid(self).items()}

    def family(self, has_more: bool) -> Family:
        """Return the project whose layout this is; `has_more` tells whether the state dict contains other tensors."""
        names = self.state.names.keys()
        return next(one for one in FAMILIES if one.fits(self.style.name, self.prefix, names, has_more))


def identify(tree: Any, arch: str | None = None) -> Identified:
    """Find the network in a checkpoint and check that it is complete.

    Args:
        tree: a state dict, or nested containers of state dicts, as returned by `safe_reading.read_file`.
        arch: timm name of the backbone, if stated by the source.

    Raises:
        UserError: the checkpoint contains no ResNet, or several without a rule to choose one; names are missing or
            unknown; or shapes, types or values are invalid.
    """
    states = state_dicts(tree)
    if arch is not None and (found := _unusual(states, arch)) is not None:
        return found
    candidates = [candidate for state in states for candidate in candidates_in(state)]
    if not candidates and len(states) > 1:
        candidates = candidates_in(flattened(states))
    if not candidates:
        raise UserError(_nothing_found(tree, states))
    whole = [candidate for candidate in candidates if candidate.is_whole]
    if not whole:
        nearest = min(candidates, key=lambda candidate: len(candidate.unknown) + len(candidate.missing))
        raise KeyMismatchError(nearest.style.name, nearest.layout, nearest.unknown, nearest.missing)
    chosen = _choose(whole)
    others = tuple(dict.fromkeys(one.place for one in whole if one is not chosen))
    return _identified(chosen, others, arch)


def _identified(chosen: Candidate, others: tuple[str, ...], arch: str | None) -> Identified:
    state = chosen.state
    names = chosen.canonical()
    named = {name: state.tensors[own] for name, own in names.items()}
    used = set(names.values())
    unused = tuple(name for name in state.tensors if name not in used)
    require_sound(named)
    facts: dict[str, Any] = {}
    if chosen.style is CAFFE2:
        _require_no_biases(chosen, unused)
        facts = {"input": CAFFE2_INPUT_FACTS, "stride_in_1x1": chosen.layout not in ("resnet18", "resnet34")}
    canonical = _in_full_precision(_completed(named))
    family = chosen.family(bool(unused))
    return Identified(family.name, find_arch(canonical, arch), canonical, unused, chosen.place, others, facts)


def candidates_in(state: StateDict) -> list[Candidate]:
    """Find the networks in a state dict by their names.

    Raises:
        UserError: there are more tensors or networks than any method has.
    """
    if len(state.tensors) > MOST_TENSORS:
        raise UserError(f"contains {len(state.tensors)} tensors in one state dict: keep only those of the network")
    places = []
    for style in STYLES:
        beginnings = {name[: name.rfind(style.first_stage)] for name in state.names if style.first_stage in name}
        for stem in state.names:
            prefix = stem.removesuffix(style.stem)
            if stem.endswith(style.stem) and prefix[-1:] in ("", ".") and prefix in beginnings:
                places.append((style, prefix))
    if len(places) > MOST_NETWORKS:
        raise UserError(f"contains {len(places)} networks in one state dict: save only one of them")
    return [_candidate(state, style, prefix) for style, prefix in places]


def _written(state: StateDict, style: Style, prefix: str) -> str:
    """Return a prefix as written in the file, including wrappers."""
    stem = state.names[prefix + style.stem]
    return stem.removesuffix(style.stem) if stem.endswith(style.stem) else prefix


def _candidate(state: StateDict, style: Style, prefix: str) -> Candidate:
    """Build the candidate with the layout whose names best match those under the prefix."""
    below = {name.removeprefix(prefix): own for name, own in state.names.items() if name.startswith(prefix)}
    owned = {name: own for name, own in below.items() if style.owned.match(name)}
    if style.elsewhere and not any(name.startswith("res5.") for name in owned):
        start = _parent(prefix) + style.elsewhere
        for name, own in state.names.items():
            part = name.removeprefix(start)
            if name.startswith(start) and part[:6] in ("res5.0", "res5.1", "res5.2"):
                owned[part] = own
    fewest: Candidate | None = None
    for layout in LAYOUTS:
        table = backbone_table(style, layout)
        unknown = tuple(own for name, own in owned.items() if name not in table and not _may_be_extra(style, name))
        missing = tuple(
            _written(state, style, prefix) + name
            for name, timm_name in table.items()
            if name not in owned and not _may_be_absent(style, timm_name)
        )
        found = {table[name]: own for name, own in owned.items() if name in table}
        one = Candidate(state, style, prefix, layout, found, unknown, missing)
        if fewest is None or len(unknown) + len(missing) < len(fewest.unknown) + len(fewest.missing):
            fewest = one
    assert fewest is not None
    return fewest


def _may_be_absent(style: Style, timm_name: str) -> bool:
    """Whether a tensor is optional: many formats omit batch counters, and Caffe2 files have folded norm statistics."""
    return timm_name.endswith(COUNTER) or (style is CAFFE2 and timm_name.endswith(STATISTICS))


def _may_be_extra(style: Style, name: str) -> bool:
    """Whether to ignore a tensor: Caffe2 files have a bias and the optimizer's momentum for some convolutions."""
    return style is CAFFE2 and (name.endswith("_momentum") or (name.endswith("_b") and not name.endswith("_bn_b")))


def _choose(whole: Sequence[Candidate]) -> Candidate:
    """Choose the main network of a checkpoint.

    Raises:
        UserError: there are several, and no rule chooses between them.
    """
    ranks = [
        sum(is_secondary(where, one.state.names.keys()) for where in (".".join(one.state.path), one.prefix))
        for one in whole
    ]
    rest = [one for one, rank in zip(whole, ranks, strict=True) if rank == min(ranks)]
    if len({one.layout for one in whole}) > 1 and any("student" in one.place for one in whole):
        rest = list(whole)  # a teacher of a different size is a distillation source, not the trained network
    for narrowed in (
        [one for one in rest if one.prefix == "backbone."],
        *([one for one in rest if key in one.state.path or one.state.path == ()] for key in PRIMARY_STATE_KEYS),
    ):
        if narrowed:
            rest = narrowed
            break
    first, *more = rest
    if any(not _same_tensors(first, other) for other in more):
        places = ", ".join(one_line(one.place or "the whole file") for one in rest[:4])
        raise UserError(
            f"contains {len(rest)} complete ResNets ({places}), and no rule to choose one: save the state dict of "
            "only one of them"
        )
    return first


def _same_tensors(one: Candidate, other: Candidate) -> bool:
    return one.layout == other.layout and all(
        _are_equal(one.state.tensors[own], other.state.tensors[other.backbone[name]])
        for name, own in one.backbone.items()
        if name in other.backbone
    )


def _are_equal(one: Tensor | NotDense, other: Tensor | NotDense) -> bool:
    if isinstance(one, NotDense) or isinstance(other, NotDense):
        return False
    return one.shape == other.shape and one.equal(other)


def _pyramid(chosen: Candidate) -> dict[str, str]:
    """Map canonical names (without `fpn.`) of the accompanying pyramid to names in the state dict; empty without one.

    Pyramids of a different design (convolutions with bias, or not four levels) are unsupported and left unused.

    Raises:
        KeyMismatchError: a pyramid of the supported design is incomplete.
    """
    state = chosen.state
    parent = _parent(chosen.prefix)
    for style in PYRAMID_STYLES:
        owned = {
            name.removeprefix(parent): own
            for name, own in state.names.items()
            if name.startswith(parent) and style.owned.fullmatch(name.removeprefix(parent))
        }
        if not owned or _is_foreign(style, owned):
            continue
        table = pyramid_table(style)
        unknown = [own for name, own in owned.items() if name not in table]
        missing = [parent + name for name in table if name not in owned and not name.endswith(COUNTER)]
        if unknown or missing:
            raise KeyMismatchError(chosen.style.name, f"{chosen.layout} with feature pyramid", unknown, missing)
        return {table[name]: own for name, own in owned.items()}
    return {}


def _is_foreign(style: PyramidStyle, names: Mapping[str, str]) -> bool:
    matches = [match for name in names if (match := style.owned.fullmatch(name))]
    with_bias = any(match["tensor"] in ("bias", "conv.bias", "0.bias") for match in matches)
    return with_bias or len({match["level"] for match in matches}) != 4


def _parent(prefix: str) -> str:
    """Return the parent prefix: `a.b.` -> `a.`."""
    return prefix[: prefix.rstrip(".").rfind(".") + 1]


def _unusual(states: Sequence[StateDict], arch: str) -> Identified | None:
    """Identify a backbone other than a plain ResNet, given its architecture."""
    expected = backbone_names(arch)
    if layout_of(expected) is not None:
        return None
    for state in states:
        for prefix in ("", "backbone."):
            if all(prefix + name in state.names for name in expected if not name.endswith(COUNTER)):
                named = {
                    f"backbone.{name}": state.tensors[state.names[prefix + name]]
                    for name in expected
                    if prefix + name in state.names
                }
                fpn = {name: state.tensors[own] for name, own in state.names.items() if name.startswith("fpn.")}
                named |= fpn if prefix else {}
                used = {state.names[prefix + name] for name in expected if prefix + name in state.names}
                unused = tuple(own for name, own in state.names.items() if own not in used and name not in named)
                require_sound(named)
                canonical = _in_full_precision(_with_counters(named, expected))
                scheme = "canonical" if prefix else "timm"
                return Identified(scheme, find_arch(canonical, arch), canonical, unused)
    largest = max(states, key=lambda state: len(state.names), default=None)
    if largest is None:
        return None
    missing = [name for name in expected if name not in largest.names and f"backbone.{name}" not in largest.names]
    raise KeyMismatchError("timm", arch, (), missing)


def _nothing_found(tree: Any, states: Sequence[StateDict]) -> str:
    if module := pickled_module(tree):
        return (
            f"contains a pickled {one_line(module, 80)}, which is code and is not read; save its state_dict: "
            'torch.save(model.state_dict(), "weights.pth")'
        )
    if not states:
        what = f"a {type(tree).__name__}"
        if isinstance(tree, Mapping):
            what = ", ".join(one_line(key, 40) for key in list(tree)[:8]) or "nothing"
        return f"contains {what}, and no tensors by name: give the file of a trained network"
    state = max(states, key=lambda one: len(one.tensors))
    some = ", ".join(one_line(name, 80) for name in list(state.tensors)[:5])
    titles = ", ".join(dict.fromkeys(family.title for family in FAMILIES))
    return (
        f"no ResNet among {len(state.tensors)} tensors ({some}, ...); read are the tensor names of torchvision, timm, "
        f"Detectron2, Caffe2 and numbered children under any prefix, as in: {titles}"
    )


def _require_no_biases(chosen: Candidate, unused: Sequence[str]) -> None:
    for name in unused:
        below = name.removeprefix(chosen.prefix)
        value = chosen.state.tensors[name]
        is_bias = bool(chosen.style.owned.match(below)) and not below.endswith("_momentum")
        if is_bias and not isinstance(value, NotDense) and bool(value.any()):
            raise UserError(f"{one_line(name)} is a non-zero bias, which a ResNet does not have")


def _completed(named: Mapping[str, Any]) -> dict[str, Tensor]:
    """Add tensors that formats omit: batch counters, which inference never reads, and statistics of folded norms."""
    import torch

    found = dict(named)
    for name, value in named.items():
        if not name.endswith(".weight") or value.ndim != 1:
            continue
        norm = name.removesuffix("weight")
        found.setdefault(f"{norm}running_mean", torch.zeros_like(value))
        found.setdefault(f"{norm}running_var", torch.full_like(value, FROZEN_VARIANCE))
        found.setdefault(f"{norm}{COUNTER}", torch.tensor(0))
    return found


def _with_counters(named: Mapping[str, Any], expected: Sequence[str]) -> dict[str, Tensor]:
    """Add the batch counters that formats omit."""
    import torch

    omitted = (f"backbone.{name}" for name in expected if name.endswith(COUNTER))
    return {**{name: torch.tensor(0) for name in omitted}, **named}


def _in_full_precision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    half = (torch.float16, torch.bfloat16)
    return {name: value.float() if value.dtype in half else value for name, value in tensors.items()}
