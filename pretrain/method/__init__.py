"""The method: CCOP and MoCo v2, as in the paper. Start with `objective`."""
