"""The signal that a student learns from, and what of it is computed once."""
