from fractions import Fraction

import numpy as np
import pytest
from ccop_pretrain.proposals.fast_search import grouping, regions
from ccop_pretrain.proposals.fast_search.grouping import FAST, QUALITY, Measures

HEIGHT, WIDTH = 60, 80


def voronoi(seed: int, channels: int = 3, cells: int = 25) -> regions.Regions:
    """Regions of random shapes with random histograms."""
    rng = np.random.default_rng(seed)
    centres = rng.random((cells, 2)) * (HEIGHT, WIDTH)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    nearest = ((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2).argmin(axis=-1)
    _, label = np.unique(nearest, return_inverse=True)
    label = label.reshape(HEIGHT, WIDTH).astype(np.int32)
    tone = rng.integers(0, 200, (label.max() + 1, channels))
    image = (tone[label] + rng.integers(0, 56, (HEIGHT, WIDTH, channels))).astype(np.uint8)
    bins = (rng.integers(0, 12, (label.max() + 1, 4 * channels))[label] + rng.integers(0, 9, (HEIGHT, WIDTH, 1))) % 20
    flat = np.ascontiguousarray(bins.reshape(-1, 4 * channels).astype(np.uint8))
    return regions.describe(label[None], [int(label.max()) + 1], image, flat)[0]


def exact_similarity(a: dict, b: dict, measures: Measures, channels: int) -> Fraction:
    """The definitions in Uijlings et al. 2013, section 3.2, with exact fractions."""
    area = HEIGHT * WIDTH
    size = a["size"] + b["size"]
    box = (min(a["box"][0], b["box"][0]), min(a["box"][1], b["box"][1]))
    box += (max(a["box"][2], b["box"][2]), max(a["box"][3], b["box"][3]))
    gap = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) - size
    shares = [
        min(Fraction(int(p), a["size"]), Fraction(int(q), b["size"])) for p, q in zip(a["bins"], b["bins"], strict=True)
    ]
    total = Fraction(0)
    if measures.colour:
        total += sum(shares[: 25 * channels], Fraction(0)) / channels
    if measures.texture:
        total += sum(shares[25 * channels :], Fraction(0)) / (8 * channels)
    if measures.size:
        total += 1 - Fraction(size, area)
    if measures.fill:
        total += 1 - Fraction(gap, area)
    return total


def slow_grouping(start: regions.Regions, measures: Measures, channels: int) -> list[list[int]]:
    """Compare all pairs of neighbours before each merge; also check that no choice is within the units' precision."""
    alive = {
        r: {"size": int(start.size[r]), "box": start.box[r].tolist(), "bins": start.counts[r].astype(int)}
        for r in range(len(start.size))
    }
    near = {r: set() for r in alive}
    for a, b in start.neighbours.tolist():
        near[a].add(b)
        near[b].add(a)
    similarity = {
        (max(a, b), min(a, b)): exact_similarity(alive[a], alive[b], measures, channels)
        for a, b in start.neighbours.tolist()
    }
    boxes = start.box.tolist()
    while similarity:
        ranked = sorted(similarity.values(), reverse=True)[:2]
        assert len(ranked) == 1 or ranked[0] - ranked[1] > 2e-6, "the example is too close to call: take another seed"
        a, b = max(similarity, key=lambda pair: similarity[pair])
        new = len(boxes)
        first, second = alive.pop(a), alive.pop(b)
        box = [min(p, q) for p, q in zip(first["box"][:2], second["box"][:2], strict=True)]
        box += [max(p, q) for p, q in zip(first["box"][2:], second["box"][2:], strict=True)]
        merged = {"size": first["size"] + second["size"], "box": box, "bins": first["bins"] + second["bins"]}
        boxes.append(box)
        similarity = {pair: value for pair, value in similarity.items() if not {a, b} & set(pair)}
        near[new] = (near.pop(a) | near.pop(b)) - {a, b}
        for other in near[new]:
            near[other] = (near[other] - {a, b}) | {new}
            similarity[new, other] = exact_similarity(merged, alive[other], measures, channels)
        alive[new] = merged
    return boxes


@pytest.mark.parametrize("measures", FAST)
@pytest.mark.parametrize(("seed", "channels"), [(0, 3), (2, 1)])
def test_merges_in_the_order_of_exact_similarities(measures: Measures, seed: int, channels: int) -> None:
    start = voronoi(seed, channels)
    found = grouping.grouped(start, HEIGHT * WIDTH, measures)
    assert found.tolist() == slow_grouping(start, measures, channels)
    assert found[-1].tolist() == [0, 0, WIDTH - 1, HEIGHT - 1]
    assert len(found) == 2 * len(start.size) - 1


def test_the_measures_are_opencvs() -> None:
    assert QUALITY[:2] == FAST
    assert [sum((m.colour, m.texture, m.size, m.fill)) for m in QUALITY] == [4, 3, 1, 1]
    assert not FAST[1].colour
    assert QUALITY[2].fill
    assert QUALITY[3].size


@pytest.mark.parametrize("measures", QUALITY[2:])
def test_size_or_fill_alone_pick_the_least(measures: Measures) -> None:
    start = voronoi(0)
    found = grouping.grouped(start, HEIGHT * WIDTH, measures)
    first_merge = found[len(start.size)].tolist()
    costs = {}
    for a, b in start.neighbours.tolist():
        low = np.minimum(start.box[a, :2], start.box[b, :2])
        high = np.maximum(start.box[a, 2:], start.box[b, 2:])
        size = int(start.size[a] + start.size[b])
        area = int(np.prod(high - low + 1))
        costs[a, b] = (size if measures.size else area - size, [*low.tolist(), *high.tolist()])
    least = min(cost for cost, _ in costs.values())
    assert first_merge in [box for cost, box in costs.values() if cost == least]


def test_equal_similarities_merge_the_newest_first() -> None:
    """Four equal squares in a row: the last pair merges first, then merges with its neighbour."""
    label = np.arange(8)[None].repeat(2, axis=0) // 2
    image, bins = np.zeros((2, 8, 1), np.uint8), np.full((16, 4), 9, np.uint8)
    start = regions.describe(label[None].astype(np.int32), [4], image, bins)[0]
    found = grouping.grouped(start, 16, Measures(texture=True))
    assert found[4:].tolist() == [[4, 0, 7, 1], [2, 0, 7, 1], [0, 0, 7, 1]]


def test_regions_that_touch_nothing_stay() -> None:
    label = np.zeros((1, 1, 6), np.int32)
    label[..., 3:] = 1
    start = regions.describe(label, [2], np.zeros((1, 6, 3), np.uint8), np.zeros((6, 12), np.uint8))[0]
    assert grouping.grouped(start, 6, FAST[0]).tolist() == [[0, 0, 2, 0], [3, 0, 5, 0]]
