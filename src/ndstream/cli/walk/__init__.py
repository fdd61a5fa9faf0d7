"""The walk of ``ndstream demo``: sample data, a stage to show calls on, and the steps."""
