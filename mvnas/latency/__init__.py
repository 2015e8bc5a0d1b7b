"""Latency of networks, from tables of measured kernels."""
