"""Downstream evaluation of pre-trained backbones: detection and the comparison of results."""
