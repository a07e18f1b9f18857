"""The Generate callable: transformers in process."""
