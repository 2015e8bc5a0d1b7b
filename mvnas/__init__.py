"""mvnas: hardware-aware neural architecture search over mobile vision transformers."""

__version__ = "0.1.0"
