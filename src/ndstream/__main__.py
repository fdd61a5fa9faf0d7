"""``python -m ndstream`` is the command ``ndstream``."""

from ndstream.cli.main import run

run()
