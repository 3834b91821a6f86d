"""A teacher's targets and states, computed once, kept in verified shards and found again by sample and tokens."""
