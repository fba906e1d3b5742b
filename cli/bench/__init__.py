"""`nfox bench`: every method, measured."""
