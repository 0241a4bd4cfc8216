"""Sources of training images: folders, lists, tar shards, COCO."""
