"""Where states of training libraries are turned into bytes and back; the one door to torch."""
