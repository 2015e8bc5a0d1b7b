"""Blocks. The file name is the name used in search spaces; the class `Block` it defines is the block.

A block is a frozen dataclass whose fields are its hyper-parameters, each a possible search dimension, and whose call
takes a value to a value.
"""
