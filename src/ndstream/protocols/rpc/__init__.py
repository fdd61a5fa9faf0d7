"""The framed TCP protocol: one HDF5 file for many clients; see SPEC.md."""
