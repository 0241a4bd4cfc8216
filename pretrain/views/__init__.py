"""From an image and its proposals to two augmented views."""
