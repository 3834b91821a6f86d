"""Tasks: what a batch is for each kind of data, its passes, its order."""
