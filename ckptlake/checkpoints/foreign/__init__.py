"""Checkpoints as other programs keep them: read without running anything, written without holding all of it."""
