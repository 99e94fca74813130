"""Tasks to train teams on: each a dataset and its reward."""
