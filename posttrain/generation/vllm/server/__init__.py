"""What runs in vLLM's environment: scripts that import nothing of this package."""
