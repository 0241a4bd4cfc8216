"""Where images come from: folders, lists, tar shards, COCO data sets."""
