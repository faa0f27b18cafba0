"""Rows in motion: runs, the buffer, the write-ahead segments, commits and recovery."""
