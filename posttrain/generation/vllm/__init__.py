"""vLLM as a server of its own, in its own environment, spoken to over HTTP."""
