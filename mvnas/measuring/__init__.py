"""Timings and energy of kernels and networks on a device, and those that others made."""
