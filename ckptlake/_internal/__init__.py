"""Foundations without knowledge of lakes: ids, clock, files, locks, names."""
