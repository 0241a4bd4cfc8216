"""Graph-based segmentation of an image at several scales at once (Felzenszwalb and Huttenlocher 2004, section 3).

Pixels are nodes, with edges to the right and lower neighbours weighted by the Euclidean distance between smoothed
colours. Edges are processed in ascending order, and two components merge if the edge is no heavier than
`last + scale / size` of either, where `last` is the weight of the edge that completed a component. Finally, components
smaller than `min_size` are merged with their nearest neighbour.

Larger scales reject fewer edges, so all scales perform the same merges until the smallest one rejects its first edge.
This covers about half of the edges and nearly all merges, so it is done once. The graph is then contracted to the
components found so far, and each scale continues on the contracted graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .compilation import inlined, kernel

Labels = npt.NDArray[np.int32]

SIGMA = 0.8  # pixels; OpenCV's default for selective search
RADIUS = 3  # pixels, as OpenCV chooses it for float images: round(4 * SIGMA)
MIN_SIZE = 100  # pixels; OpenCV's default

_FRACTION_BITS = 7  # of a smoothed value; the squared distance over three channels then fits in 32 bits
_ROW_BITS, _COLUMN_BITS = 11, 12  # of the smoothing weights in x and y; with 8-bit pixels, they fit in 31 bits
_MANTISSA_BITS = 11  # of the sort key; squared distances within 1 part in 2048 keep the order of their pixels
_SHIFT = 23 - _MANTISSA_BITS
_BUCKETS = (32 << _MANTISSA_BITS) + 2
_ONE = 127 << _MANTISSA_BITS  # the key of a squared distance of 1
_NO_EDGE = 0x80000000  # the sign bit of a float32


def _smoothing_weights(bits: int) -> npt.NDArray[np.int32]:
    """Gaussian weights from the centre outwards, in units of 2**-bits; their two-sided sum is exactly 1."""
    offsets = np.arange(RADIUS + 1)
    half = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights: npt.NDArray[np.int32] = np.rint(half / (2 * half.sum() - 1) * (1 << bits)).astype(np.int32)
    weights[0] = (1 << bits) - 2 * weights[1:].sum()
    return weights


def segment(image: npt.NDArray[np.uint8], scales: Sequence[float]) -> tuple[Labels, list[int]]:
    """Segment an image at each of several scales.

    Args:
        image: uint8 (H, W, C), C-contiguous.
        scales: Felzenszwalb's `k`, in ascending order; larger values favour larger regions.

    Returns:
        int32 (S, H, W), region index of each pixel, numbered from 0 by first pixel; and the number of regions at each
        scale.
    """
    height, width, channels = image.shape
    smooth = smoothed(image, _smoothing_weights(_ROW_BITS), _smoothing_weights(_COLUMN_BITS))
    keys = edge_keys(smooth, channels)
    del smooth  # each array here takes 8 to 33 MB at two megapixels
    edges = sorted_edges(keys)
    del keys
    parent = np.arange(height * width, dtype=np.uint32)
    size = np.ones(height * width, np.int32)
    last = np.zeros(height * width, np.float32)
    taken = merge_until_refused(parent, size, last, edges, width, scales[0])
    node, size, last = numbered(parent, size, last)
    del parent
    ends, weight = edges_between(node, edges[taken:], width)
    del edges
    labels = np.empty((len(scales), height * width), np.int32)
    counts = []
    for label, scale in zip(labels, scales, strict=True):
        region, count = merged(size, last, ends, weight, scale, MIN_SIZE)
        paint(node, region, label)
        counts.append(count)
    return labels.reshape(len(scales), height, width), counts


@inlined
def reflected(index: int, length: int) -> int:
    """Reflect an out-of-range index at the first or last element of a row of this length."""
    if length == 1:
        return 0
    index = abs(index) % (2 * length - 2)
    return min(index, 2 * length - 2 - index)


@kernel("int16[:,::1](uint8[:,:,::1], int32[::1], int32[::1])")
def smoothed(image: Any, row_weights: Any, column_weights: Any) -> Any:
    """Smooth with a Gaussian in fixed point: int16 (H, W * C), in units of 2**-7."""
    height, width, channels = image.shape
    across = width * channels
    margin = RADIUS * channels
    out = np.empty((height, across), np.int16)
    padded = np.empty(across + 2 * margin, np.int32)
    rows = np.empty((2 * RADIUS + 1, across), np.int32)  # ring buffer of rows smoothed along x
    total = np.empty(across, np.int32)
    flat = image.reshape(height, across)
    for step in range(-RADIUS, height + RADIUS):
        source = flat[reflected(step, height)]
        for i in range(across):
            padded[margin + i] = source[i]
        for j in range(1, RADIUS + 1):
            for c in range(channels):
                padded[margin - j * channels + c] = source[reflected(-j, width) * channels + c]
                padded[margin + (width - 1 + j) * channels + c] = source[reflected(width - 1 + j, width) * channels + c]
        row = rows[step % len(rows)]
        for i in range(across):
            row[i] = row_weights[0] * padded[margin + i]
        for j in range(1, RADIUS + 1):
            before, after = padded[margin - j * channels :], padded[margin + j * channels :]
            for i in range(across):
                row[i] += row_weights[j] * (before[i] + after[i])
        y = step - RADIUS
        if y < 0:
            continue
        row = rows[y % len(rows)]
        for i in range(across):
            total[i] = column_weights[0] * row[i] + (1 << (_ROW_BITS + _COLUMN_BITS - _FRACTION_BITS - 1))
        for j in range(1, RADIUS + 1):
            above, below = rows[(y - j) % len(rows)], rows[(y + j) % len(rows)]
            for i in range(across):
                total[i] += column_weights[j] * (above[i] + below[i])
        target = out[y]
        for i in range(across):
            target[i] = np.int16(total[i] >> (_ROW_BITS + _COLUMN_BITS - _FRACTION_BITS))
    return out


@inlined
def squared_distances(out: Any, first: Any, second: Any, channels: Any) -> None:
    """Compute 1 + squared distance of N pairs of colours, (N * C,) and (N * C,), in units of 2**-14."""
    for x in range(len(out)):
        total = np.uint32(1)  # avoids a special case for the logarithm of 0
        for c in range(channels):
            difference = np.int32(first[x * channels + c]) - np.int32(second[x * channels + c])
            total += np.uint32(difference * difference)
        out[x] = np.float32(total)


@inlined
def bucket(bits: Any) -> Any:
    """Map the bits of a float32 >= 1 to its sort bucket, the leading bits of its logarithm."""
    return (bits >> np.uint32(_SHIFT)) - np.uint32(_ONE)


@kernel("float32[:,:,::1](int16[:,::1], int64)")
def edge_keys(smooth: Any, channels: int) -> Any:
    """Compute the sort keys of all edges: `squared_distances` (H, 2, W) right and down; -1 at the image border."""
    height, width = smooth.shape[0], smooth.shape[1] // channels
    keys = np.full((height, 2, width), np.float32(-1))
    for y in range(height):
        right, down = smooth[y, channels:], smooth[min(y + 1, height - 1)]
        below = keys[y, 1, : width if y + 1 < height else 0]
        if channels == 3:  # a constant lets the compiler unroll the loop over the channels
            squared_distances(keys[y, 0, :-1], smooth[y], right, 3)
            squared_distances(below, smooth[y], down, 3)
        else:
            squared_distances(keys[y, 0, :-1], smooth[y], right, channels)
            squared_distances(below, smooth[y], down, channels)
    return keys


@kernel("uint32[:,::1](float32[:,:,::1])")
def sorted_edges(keys: Any) -> Any:
    """Sort the edges of the pixel grid by ascending key, keeping equal keys in pixel order (a counting sort).

    Returns:
        uint32 (M, 2): twice the index of an edge's first pixel, plus 1 if the second pixel is below it (rather than to
        the right); and the bits of the key.
    """
    height, _, width = keys.shape
    values = keys.view(np.uint32)
    place = np.zeros(_BUCKETS + 1, np.uint32)
    for bits in values.reshape(-1):
        if bits < np.uint32(_NO_EDGE):
            place[bucket(bits) + np.uint32(1)] += np.uint32(1)
    for i in range(_BUCKETS):
        place[i + 1] += place[i]
    edges = np.empty((place[_BUCKETS], 2), np.uint32)
    for y in range(height):
        row = values[y]
        for x in range(width):
            for direction in range(2):
                bits = row[direction, x]
                if bits < np.uint32(_NO_EDGE):
                    target = place[bucket(bits)]
                    place[bucket(bits)] = target + np.uint32(1)
                    edges[target, 0] = 2 * (y * width + x) + direction
                    edges[target, 1] = bits
    return edges


@inlined
def weight_of(key: Any) -> Any:
    """Convert a key to the weight of its edge."""
    return np.sqrt(key - np.float32(1)) * np.float32(1 / (1 << _FRACTION_BITS))


@inlined
def pixels_of(code: Any, width: Any) -> tuple[Any, Any]:
    """Return the two pixels of an edge from `sorted_edges`."""
    first = code >> np.uint32(1)
    return first, first + (width if code & np.uint32(1) else np.uint32(1))


@inlined
def root_of(parent: Any, node: Any) -> Any:
    """Find the root of a node's component, and attach the node directly to it."""
    root = parent[node]
    while parent[root] != root:
        root = parent[root]
    parent[node] = root
    return root


@kernel("int64(uint32[::1], int32[::1], float32[::1], uint32[:,::1], uint32, float32)")
def merge_until_refused(parent: Any, size: Any, last: Any, edges: Any, width: Any, scale: Any) -> int:
    """Merge pixel components edge by edge until an edge is rejected; return the number of edges before it."""
    keys = edges.view(np.float32)
    for edge in range(len(edges)):
        x, y = pixels_of(edges[edge, 0], width)
        if parent[x] == parent[y]:  # shortcut for most edges within a component
            continue
        a, b = root_of(parent, x), root_of(parent, y)
        if a == b:
            continue
        weight = weight_of(keys[edge, 1])
        if weight > last[a] + scale / np.float32(size[a]) or weight > last[b] + scale / np.float32(size[b]):
            return edge
        if size[a] < size[b]:
            a, b = b, a
        parent[b] = a
        size[a] += size[b]
        last[a] = weight
    return len(edges)


@kernel("Tuple((uint32[::1], int32[::1], float32[::1]))(uint32[::1], int32[::1], float32[::1])")
def numbered(parent: Any, size: Any, last: Any) -> tuple[Any, Any, Any]:
    """Contract each component to a node, numbered by first pixel.

    Returns:
        uint32 node of each pixel; size and `last` weight of each node.
    """
    count = 0
    for i in range(len(parent)):
        count += parent[i] == i
    new_size, new_last = np.empty(count, np.int32), np.empty(count, np.float32)
    number = np.full(len(parent), np.uint32(0xFFFFFFFF))
    node = np.empty(len(parent), np.uint32)
    nodes = np.uint32(0)
    for i in range(len(parent)):
        root = root_of(parent, np.uint32(i))
        if number[root] == np.uint32(0xFFFFFFFF):
            number[root] = nodes
            new_size[nodes], new_last[nodes] = size[root], last[root]
            nodes += np.uint32(1)
        node[i] = number[root]
    return node, new_size, new_last


@kernel("Tuple((uint32[:,::1], float32[::1]))(uint32[::1], uint32[:,::1], uint32)")
def edges_between(node: Any, edges: Any, width: Any) -> tuple[Any, Any]:
    """Select the edges between different nodes: their nodes (M, 2) and weights (M,)."""
    keys = edges.view(np.float32)
    ends, weight = np.empty((len(edges) + 1, 2), np.uint32), np.empty(len(edges) + 1, np.float32)
    kept = np.uint32(0)
    for edge in range(len(edges)):
        x, y = pixels_of(edges[edge, 0], width)
        # Always write, and overwrite unless it counts; a branch would be mispredicted every other time.
        ends[kept, 0], ends[kept, 1], weight[kept] = node[x], node[y], weight_of(keys[edge, 1])
        kept += np.uint32(node[x] != node[y])
    return ends[:kept], weight[:kept]


@kernel("Tuple((int32[::1], int64))(int32[::1], float32[::1], uint32[:,::1], float32[::1], float32, int64)")
def merged(size: Any, last: Any, ends: Any, weight: Any, scale: Any, min_size: int) -> tuple[Any, int]:
    """Process the remaining edges, then merge components that are too small; `size` and `last` are not modified.

    Returns:
        int32 region of each node, numbered by first node; and the number of regions.
    """
    count = len(size)
    parent = np.empty(count, np.uint32)
    size = size.copy()
    limit = np.empty(count, np.float32)
    for i in range(count):
        parent[i] = i
        limit[i] = last[i] + scale / np.float32(size[i])
    refused = np.empty(len(ends), np.uint32)
    refusals = 0
    for edge in range(len(ends)):
        x, y = ends[edge, 0], ends[edge, 1]
        if parent[x] == parent[y]:
            continue
        a, b = root_of(parent, x), root_of(parent, y)
        if a == b:
            continue
        value = weight[edge]
        if value <= limit[a] and value <= limit[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            limit[a] = value + scale / np.float32(size[a])
        else:
            refused[refusals] = edge
            refusals += 1
    for edge in refused[:refusals]:
        a, b = root_of(parent, ends[edge, 0]), root_of(parent, ends[edge, 1])
        if a != b and (size[a] < min_size or size[b] < min_size):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    region = np.full(count, -1, np.int32)
    regions = 0
    for i in range(count):
        root = root_of(parent, np.uint32(i))
        if region[root] < 0:
            region[root] = regions
            regions += 1
    # A root can come after other nodes of its region, so keep its number available until the end.
    found = np.empty(count, np.int32)
    for i in range(count):
        found[i] = region[parent[i]]
    return found, regions


@kernel("void(uint32[::1], int32[::1], int32[::1])")
def paint(node: Any, region: Any, label: Any) -> None:
    """Write the region of each pixel to `label`."""
    for i in range(len(node)):
        label[i] = region[node[i]]
