"""Search spaces, architectures and their files."""
