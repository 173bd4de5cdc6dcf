"""Fault injection against the real program on real nodes, judged by an oracle outside of it (docs/guarantees.md)."""
