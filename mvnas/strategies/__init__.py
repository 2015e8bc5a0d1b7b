"""What a search trains next."""
