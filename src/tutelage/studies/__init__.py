"""Many runs: which ones, on which engine, and their records."""
