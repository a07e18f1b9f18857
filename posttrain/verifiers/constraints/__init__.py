"""Checkable constraints on a response, one file per family: `(response, **arguments) -> bool`.

`ifeval` and `ifeval_old` give them their published names and read their arguments.
"""
