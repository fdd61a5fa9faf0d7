"""Thin shells that move bytes and know no protocol."""
