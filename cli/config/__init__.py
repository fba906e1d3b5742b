"""A file of options: `nfox config`, and how every command reads it."""
