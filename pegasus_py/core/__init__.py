"""Pure: no I/O, no clock, no randomness, no asyncio. Everything here can be tested without a network."""
