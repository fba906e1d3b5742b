"""nfox's own version, which also reads the file that installs it."""

__version__ = "0.2.0"
