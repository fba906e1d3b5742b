"""A benchmark's result as a page and as plots."""
