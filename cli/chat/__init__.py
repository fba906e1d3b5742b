"""The chat, its slash commands, and answers to a single prompt."""
