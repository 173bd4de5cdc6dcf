"""The cases: each module has `run(bench) -> Section`."""
