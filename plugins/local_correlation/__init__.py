"""Correlates each reference vector with the query vectors around the same pixel."""
