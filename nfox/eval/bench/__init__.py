"""The benchmark: interleaved trials, and the figures that are made of them."""
