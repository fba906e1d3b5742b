"""Answer files that judges and public evaluation programs read."""
