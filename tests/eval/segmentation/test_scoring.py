import numpy as np
import pytest
import torch
from ccop_eval.segmentation.scoring import (
    class_iou,
    class_map,
    confusion,
    matrix_statistic,
    segmentation_metrics,
    sliding_logits,
    window_starts,
)


def test_metrics_equal_a_slow_recomputation():
    generator = np.random.default_rng(6)
    predicted, truth = generator.integers(0, 4, (2, 3, 20, 30))
    truth[generator.random(truth.shape) < 0.2] = 255
    predicted[truth == 3] = 1
    truth[truth == 3] = 2
    predicted[predicted == 3] = 0
    matrices = np.stack(
        [confusion(torch.tensor(p), torch.tensor(t), 4).numpy() for p, t in zip(predicted, truth, strict=True)]
    )
    for counts in ([1, 1, 1], [2, 0, 1]):
        pairs = [
            (int(t), int(p))
            for image, times in enumerate(counts)
            for t, p in zip(truth[image].ravel(), predicted[image].ravel(), strict=True)
            if t != 255
            for _ in range(times)
        ]
        iou = []
        for label in range(3):
            both = sum(t == label and p == label for t, p in pairs)
            iou.append(100 * both / sum(label in pair for pair in pairs))
        values = matrix_statistic(matrices)(np.array(counts))
        assert values["mIoU"] == pytest.approx(np.mean(iou))
        assert values["pixel_accuracy"] == pytest.approx(100 * np.mean([t == p for t, p in pairs]))
    assert np.isnan(class_iou(matrices.sum(0))[3]), "a class that is nowhere has no IoU and does not count in the mean"
    assert np.isnan(segmentation_metrics(np.zeros((2, 2), dtype=int))["mIoU"])


def test_windows_cover_every_pixel_and_average():
    for length, window, stride in ((2049, 769, 513), (1025, 769, 513), (100, 769, 513), (770, 769, 513)):
        starts = window_starts(length, window, stride)
        covered = np.zeros(length, dtype=int)
        for start in starts:
            covered[start : start + window] += 1
        assert covered.min() >= 1
        assert starts[-1] + min(window, length) == length
    assert window_starts(2049, 769, 513) == [0, 513, 1026, 1280]

    def network(crop):
        return torch.full((1, 1, *crop.shape[-2:]), float(crop[0, 0, 0, 0]))

    image = torch.arange(12.0).view(1, 1, 2, 6)
    logits = sliding_logits(network, image, window=4, stride=2)
    assert logits[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(sliding_logits(network, image, window=4, stride=0), torch.zeros(1, 1, 2, 6))


def test_logits_reach_the_labels_size_by_aligned_corners():
    logits = torch.tensor([[[[0.0, 1.0]], [[0.6, 0.6]]]])
    assert class_map(logits, (1, 5)).tolist() == [[1, 1, 1, 0, 0]]
