"""Answer files that FastChat's judge and public evaluation programs read."""
