"""`nfox generate`: prompts of a file, answered."""
