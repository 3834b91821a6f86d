"""Cohorts: several students on one backbone, trained on one stream of data, judged singly and together."""
