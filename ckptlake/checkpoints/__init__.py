"""Checkpoints: state turned into bytes that can be trusted, found and afforded."""
