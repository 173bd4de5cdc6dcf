"""Subscribers that print."""
