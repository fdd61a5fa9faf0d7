"""Suites that every store, codec and protocol inherits, and a local server for other people's tests."""
