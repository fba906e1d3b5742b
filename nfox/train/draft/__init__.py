"""A small draft model, distilled from its target."""
