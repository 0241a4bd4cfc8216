"""Turn an image and its proposals into two augmented views."""
