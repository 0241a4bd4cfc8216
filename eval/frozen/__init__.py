"""Frozen-feature evaluations: linear probe, kNN and VOC07 SVM."""
