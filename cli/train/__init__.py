"""`nfox train`."""
