"""Mask R-CNN on COCO-format data with Detectron2 as the engine."""
