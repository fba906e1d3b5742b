"""The benchmark: every method against plain decoding, on the same prompts, in the same run."""
