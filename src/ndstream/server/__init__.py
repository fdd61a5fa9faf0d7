"""The server: one application, many protocols."""
