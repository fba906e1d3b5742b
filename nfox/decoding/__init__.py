"""The papers: propose, score, verify, commit. Tokens in, steps out; no file, no text, no method."""
