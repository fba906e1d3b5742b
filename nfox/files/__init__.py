"""Files: of the hub, of JSON lines, whole or not at all, with their provenance."""
