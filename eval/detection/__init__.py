"""Object detection with Detectron2 on COCO, Pascal VOC and Cityscapes data."""
