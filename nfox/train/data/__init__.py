"""Conversations and tasks as rows to train on, and who answers their questions."""
