"""`nfox data`: data to train on."""
