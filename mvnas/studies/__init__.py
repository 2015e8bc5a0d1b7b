"""What is known of the candidates of a search, and where it is kept."""
