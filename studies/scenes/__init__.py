"""What pre-training on a few thousand scenes does for a small network: CCOP, its ablations and MoCo v2."""
