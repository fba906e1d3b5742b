"""Training of heads: conversations to rows, a frozen target to hidden states, one trainer for all.

A method brings its layers and their loss (`nfox.heads.Heads`); nothing here knows any of them.
"""
