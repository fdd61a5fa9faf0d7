"""ndstream."""
