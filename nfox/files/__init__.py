"""Reading and writing files: of the hub, of JSON lines, complete or not there, with provenance."""
