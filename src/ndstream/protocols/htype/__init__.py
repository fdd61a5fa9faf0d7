"""Messages of detectors and of beam-synchronous data, as they travel over ZeroMQ; see SPEC.md in this folder."""
