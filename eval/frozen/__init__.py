"""Evaluations of frozen features: linear probe, kNN, VOC07 SVM."""
