"""Streams into files, and files into streams."""
