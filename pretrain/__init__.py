"""CCOP pre-training: proposals, two views, the objective, training and export."""
