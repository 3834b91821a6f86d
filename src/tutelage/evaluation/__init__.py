"""Judging: error rates, intervals, paired comparisons, speed."""
