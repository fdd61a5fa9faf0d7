"""Where arrays are kept."""
