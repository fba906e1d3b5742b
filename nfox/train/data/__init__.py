"""Training data: conversations and task records, rows of tokens, and self-distillation."""
