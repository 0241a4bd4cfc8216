"""Where training images come from: folders, lists, tar shards, COCO."""
