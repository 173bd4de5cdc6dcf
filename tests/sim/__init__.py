"""The scheduler in a simulated world, from a seed: nodes, network, disk, users and faults under a virtual clock.

`world` has the clock and the faults, `node` what a node does, `disk` the ledger and the queue file, `controller` one
life of a controller (the engine and its links), `oracle` what may never happen. `python -m tests.sim --seed 123`
replays one seed with its whole story.
"""
