"""Speed and size of ckptlake against named references measured in the same run: `python -m benchmarks --help`."""
