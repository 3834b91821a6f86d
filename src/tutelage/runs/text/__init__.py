"""Runs on text: a causal language model teaches another, or one learns by itself."""
