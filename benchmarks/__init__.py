"""What ndstream reaches, held against the limit of the machine in the same run: ``python -m benchmarks --help``."""
