import dataclasses
import random

import numpy as np
from ccop_eval.protocols import SEGMENTATION_PROTOCOLS
from ccop_eval.segmentation.crops import random_crop
from PIL import Image


def test_crop_moves_image_and_label_together():
    label = np.zeros((40, 60), dtype=np.uint8)
    label[10:20, 30:50] = 1
    image = Image.fromarray(np.repeat(label[..., None] * 255, 3, axis=2))
    protocol = dataclasses.replace(SEGMENTATION_PROTOCOLS["cityscapes-fcn16-90k"], scale_to=(0, 0), crop_size=48)
    for seed in range(20):
        pixels, classes = random_crop(image, label, protocol, random.Random(seed))
        assert pixels.shape == (48, 48, 3)
        inside = classes != 255
        agree = (pixels[..., 0] > 127) == (classes == 1)
        assert agree[inside].mean() > 0.97
        assert (pixels[~inside] == [124, 116, 104]).all()
