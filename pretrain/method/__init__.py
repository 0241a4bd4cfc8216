"""The method: CCOP and MoCo v2 as the paper describes them. Start with `objective`."""
