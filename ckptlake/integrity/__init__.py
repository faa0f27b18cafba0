"""Whether stored bytes are still what was written: verify, watch, protect, repair."""
