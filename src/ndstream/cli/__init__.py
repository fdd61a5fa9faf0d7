"""The command line, one module per command.

Command modules import only what declares their options, so that ``ndstream --help`` is fast; what does the work is
imported when the command runs.
"""
