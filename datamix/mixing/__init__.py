"""Mixing strategies: weights say how much of each source, orders in which order, stops until when."""
