"""The conversation templates that come with nfox: one JSON file each."""
