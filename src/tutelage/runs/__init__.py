"""The use cases: distil, evaluate, demo."""
