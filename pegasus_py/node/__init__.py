"""Anything that gives us a shell on a node, and the script that runs there."""
