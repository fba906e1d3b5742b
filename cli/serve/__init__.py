"""`nfox serve` and `nfox worker`: OpenAI's API, and FastChat's."""
