"""A trained and an untrained network on synthetic images, for `ccop-eval demo`."""
