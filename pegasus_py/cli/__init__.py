"""One file per verb: parse, compose, print."""
