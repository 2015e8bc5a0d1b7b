"""Latency of networks, from tables of measured kernels."""

DEFAULT_TABLE = "genoa-1t"  # the shipped table that predictions are for where the user names none
