"""Message streams: arrays in flight, any codec over ZeroMQ."""
