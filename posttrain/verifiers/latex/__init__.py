"""Answers written in LaTeX: found in a completion, normalised as text, compared as mathematics."""
