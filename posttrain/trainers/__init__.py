"""Trainers: they join batches with a loss. Subclasses of `transformers.Trainer`."""
