"""The data model and its algebra: what an array, a file and a selection are. Opens nothing, waits for nothing."""
