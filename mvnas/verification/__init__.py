"""How far the figures of a study may be believed."""
