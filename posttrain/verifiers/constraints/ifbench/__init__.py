"""IFBench's constraints (Pyatkin et al. 2025, arXiv:2507.02833), one file per published family."""
