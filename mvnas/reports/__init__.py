"""Studies and networks as text, tables and pictures."""
