"""Pegasus: run a list of commands on a set of SSH nodes, and lose nothing."""

__version__ = "0.1.0"
