"""Publishing weights: the card, verification, the upload."""
