"""`nfox eval`: quality, and the accuracy of heads."""
