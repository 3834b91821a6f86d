"""What a batch is, for each kind of data."""
