"""Settings of a pre-training run that takes seconds on one core."""

SMALL_RUN = {
    "image_size": 32,
    "batch_size": 4,
    "warmup_epochs": 0.5,
    "hidden_dim": 16,
    "embedding_dim": 8,
    "jitters": 2,
    "image_queue": 16,
    "box_queue": 32,
    "max_boxes": 12,
    "workers": 0,
    "log_every": 1,
    "pictures": 0,
    "accelerator": "cpu",
}
