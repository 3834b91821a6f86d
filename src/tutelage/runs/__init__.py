"""The use cases: distil, evaluate, demo; what is common to all tasks, and a package for each."""
