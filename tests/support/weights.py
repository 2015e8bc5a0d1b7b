"""Modules whose weights and statistics are not those of a fresh module."""

from mvnas.testing.weights import randomise as randomise
