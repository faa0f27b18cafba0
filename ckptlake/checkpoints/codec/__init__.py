"""The lossless codec of tensors and the pack files that hold what it makes."""
