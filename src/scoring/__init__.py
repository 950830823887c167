"""Checkpoints -> scores, tables, intervals, comparisons and charts."""
