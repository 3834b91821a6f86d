"""Scaling laws: what a student of a given size, data and teacher can reach, in nats per token."""
