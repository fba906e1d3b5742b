"""Options as dataclasses, and how Typer gets them."""
