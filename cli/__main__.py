"""`python -m nfox.cli`: what the command `nfox` runs."""

from . import main

main()
