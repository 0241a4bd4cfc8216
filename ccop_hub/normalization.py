"""Input normalisation used by all networks of the hub."""

PIXEL_MEAN = (123.675, 116.28, 103.53)
"""Mean of the ImageNet training images, RGB, on the 0-255 scale (Detectron2's and MoCo's values)."""

PIXEL_STD = (58.395, 57.12, 57.375)
"""Standard deviation of the ImageNet training images, RGB, on the 0-255 scale."""

INPUT_FACTS = {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD), "channel_order": "RGB", "range": "0-255"}
"""The same, as recorded in the facts of a checkpoint."""

CAFFE2_INPUT_FACTS = {
    "mean": [103.53, 116.28, 123.675],
    "std": [1.0, 1.0, 1.0],
    "channel_order": "BGR",
    "range": "0-255",
}
"""Normalisation of networks with Caffe2 names (Detectron2's `MODEL.PIXEL_MEAN` and `PIXEL_STD` for MSRA models)."""
