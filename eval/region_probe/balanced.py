"""Classifiers that give every class the same weight: multinomial logistic regression, and votes of neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ccop_hub.errors import UserError

MOST_ITERATIONS = 500
"""Limit of the solver's iterations for each penalty; standardised features need far fewer."""

GRADIENT_TOLERANCE = 1e-5
"""The solver stops once no entry of the gradient is larger; the loss is of order log(classes)."""

PATIENCE = 2
"""Penalties after the best one on the hold-out before the search stops: weaker ones only fit the training rows more."""

MOST_HELD_BYTES = 4 * 2**30
"""Standardised features up to this size stay on the device; larger ones are made anew, block by block, at each step."""

_HISTORY = 10
_SMALLEST_STD = 1e-6
_BLOCK = 16384


@dataclass(frozen=True)
class Standardiser:
    """Shift and scale of each feature, so that the rows it was made from have mean 0 and standard deviation 1.

    Attributes:
        mean: (D,) float32.
        scale: (D,) float32, 1 / standard deviation; 0 for a feature that is constant.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, rows: np.ndarray | None = None) -> Standardiser:
        """Measure (M, D) features, or only the given rows of them; reads them block by block."""
        chosen = np.arange(len(features)) if rows is None else np.sort(rows)
        total = np.zeros(features.shape[1])
        for start in range(0, len(chosen), _BLOCK):
            total += features[chosen[start : start + _BLOCK]].sum(0, dtype=np.float64)
        mean = total / len(chosen)
        squares = np.zeros(features.shape[1])
        for start in range(0, len(chosen), _BLOCK):
            squares += ((features[chosen[start : start + _BLOCK]] - mean) ** 2).sum(0)
        std = np.sqrt(squares / len(chosen))
        varies = std > _SMALLEST_STD * np.maximum(np.abs(mean), std.max(initial=0.0))
        scale = np.divide(1.0, std, out=np.zeros_like(std), where=varies)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Standardise (N, D) features: float32."""
        standardised: np.ndarray = (features - self.mean) * self.scale
        return standardised.astype(np.float32, copy=False)


@dataclass(frozen=True)
class LinearHead:
    """A fitted linear classifier on standardised features.

    Attributes:
        standardiser: applied to the features first.
        weight: (classes, D).
        bias: (classes,).
    """

    standardiser: Standardiser
    weight: Tensor
    bias: Tensor

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predict the class of each row of (N, D) features: (N,) int64."""
        found = [scores.argmax(1).cpu().numpy() for _, scores in self._scores(features)]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def loss(self, features: np.ndarray, labels: np.ndarray, class_weights: Tensor) -> float:
        """Cross-entropy of (N, D) features with (N,) labels, as a mean weighted by `class_weights`."""
        total, weight = 0.0, 0.0
        for start, scores in self._scores(features):
            truth = torch.from_numpy(labels[start : start + len(scores)]).to(scores.device)
            total += float(F.cross_entropy(scores, truth, class_weights, reduction="sum"))
            weight += float(class_weights[truth].sum())
        return total / weight if weight else float("nan")

    def _scores(self, features: np.ndarray) -> list[tuple[int, Tensor]]:
        blocks = range(0, len(features), _BLOCK)
        return [
            (start, F.linear(self._on_device(features[start : start + _BLOCK]), self.weight, self.bias))
            for start in blocks
        ]

    def _on_device(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.standardiser(rows)).to(self.weight)


def class_weights(labels: np.ndarray, classes: int, device: torch.device) -> Tensor:
    """Weights with which every class that occurs counts the same: (classes,), rows / (occurring classes x own rows).

    A class without rows has weight 0.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels) / (counts > 0).sum(), counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights).to(device, torch.float32)


class LogisticRegression:
    """Balanced multinomial logistic regression with an L2 penalty, solved by L-BFGS until it converges.

    Minimises the mean cross-entropy, weighted so that every class counts the same, plus `penalty` / 2 times the squared
    norm of the weights (not of the biases). Features are standardised with the statistics of the training rows.
    scikit-learn's `LogisticRegression(class_weight="balanced", C=1 / (rows * penalty))` has the same minimum; this one
    runs on a GPU too, and goes from one penalty to the next without starting over.

    Args:
        features: (M, D) float32; may be a memory map.
        labels: (M,) class indices.
        classes: number of classes.
        rows: (N,) rows to fit.
        device: device to compute on.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, classes: int, rows: np.ndarray, device: torch.device
    ) -> None:
        self.device = device
        self.standardiser = Standardiser.of(features, rows)
        self.class_weights = class_weights(labels[rows], classes, device)
        self._features, self._labels, self._rows = features, labels, np.sort(rows)
        held = len(rows) * features.shape[1] * np.dtype(np.float32).itemsize <= MOST_HELD_BYTES
        self._blocks = list(self._read_blocks()) if held else None
        self.weight = torch.zeros(classes, features.shape[1], device=device, requires_grad=True)
        self.bias = torch.zeros(classes, device=device, requires_grad=True)

    def fit(self, penalty: float) -> LinearHead:
        """Minimise, starting from the previous fit.

        Raises:
            UserError: the loss is not finite.
        """
        solver = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=MOST_ITERATIONS,
            tolerance_grad=GRADIENT_TOLERANCE,
            tolerance_change=0.0,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        )

        def evaluate() -> float:
            solver.zero_grad()
            total = 0.0
            for loss in self._losses(penalty):
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            if not np.isfinite(total):
                raise UserError(
                    f"the loss of the linear classifier became {total:g} at a penalty of {penalty:g}: the features are "
                    "too large; check the weights with `ccop-hub verify`"
                )
            return total

        solver.step(evaluate)  # type: ignore[no-untyped-call]
        return LinearHead(self.standardiser, self.weight.detach().clone(), self.bias.detach().clone())

    def _losses(self, penalty: float) -> Iterator[Tensor]:
        """Yield the terms of the loss: one per block of rows, and the penalty."""
        for features, labels in self._blocks or self._read_blocks():
            scores = F.linear(features, self.weight, self.bias)
            # The class weights of the rows sum to their number.
            yield F.cross_entropy(scores, labels, self.class_weights, reduction="sum") / len(self._rows)
        yield penalty / 2 * self.weight.square().sum()

    def _read_blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the standardised features and the labels of the rows, block by block."""
        for start in range(0, len(self._rows), _BLOCK):
            rows = self._rows[start : start + _BLOCK]  # sorted: reading a memory map sequentially is fastest
            features = self.standardiser(self._features[rows])
            yield torch.from_numpy(features).to(self.device), torch.from_numpy(self._labels[rows]).to(self.device)


@dataclass(frozen=True)
class ChosenHead:
    """The head with the penalty that was best on the hold-out, refitted to all training rows.

    Attributes:
        head: the head.
        penalty: its penalty.
        tried: for each penalty that was fitted, `penalty`, `holdout/loss` (balanced cross-entropy) and
            `holdout/mean_class` (class mean of the accuracy in percent).
    """

    head: LinearHead
    penalty: float
    tried: list[dict[str, float]]


def choose_head(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    kept: np.ndarray,
    held: np.ndarray,
    penalties: Sequence[float],
    device: torch.device,
) -> ChosenHead:
    """Choose the penalty by the balanced cross-entropy on held-out rows, and refit to all rows.

    The loss rather than the accuracy chooses: with few rows a class, the accuracy moves in large steps. Penalties are
    tried from the strongest to the weakest.

    Args:
        features: (M, D) float32 features of the training rows.
        labels: (M,) class indices.
        classes: number of classes.
        kept: rows to fit.
        held: held-out rows.
        penalties: penalties to choose from.
        device: device to compute on.
    """
    ordered = sorted(penalties, reverse=True)
    search = LogisticRegression(features, labels, classes, kept, device)
    tried: list[dict[str, float]] = []
    best = 0
    for penalty in ordered:
        head = search.fit(penalty)
        hits = head.predict(features[held]) == labels[held]
        tried.append(
            {
                "penalty": penalty,
                "holdout/loss": head.loss(features[held], labels[held], search.class_weights),
                "holdout/mean_class": mean_class_accuracy(hits, labels[held]),
            }
        )
        if tried[-1]["holdout/loss"] < tried[best]["holdout/loss"]:
            best = len(tried) - 1
        if len(tried) - 1 - best >= PATIENCE:
            break
    head = LogisticRegression(features, labels, classes, np.arange(len(labels)), device).fit(ordered[best])
    return ChosenHead(head, ordered[best], tried)


def mean_class_accuracy(hits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share of (N,) hits, in percent; NaN without rows."""
    return float(100 * np.mean([hits[labels == label].mean() for label in np.unique(labels)])) if len(hits) else np.nan


def balanced_votes(votes: Tensor, labels: np.ndarray) -> Tensor:
    """Divide each class's votes by its share of the bank, so that frequent classes do not win by their number.

    Args:
        votes: (N, classes) votes of neighbours.
        labels: (M,) class indices of the bank.
    """
    counts = torch.from_numpy(np.bincount(labels, minlength=votes.shape[1]))
    return votes / counts.clamp_min(1)
