"""What a student is asked to match: losses that take tensors and return (sum, count)."""
