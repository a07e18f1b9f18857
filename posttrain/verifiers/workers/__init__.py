"""Verifiers in processes of their own, and the check that gold answers pass."""
