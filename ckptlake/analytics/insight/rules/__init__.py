"""The rules that look over an experiment, one thing each."""
