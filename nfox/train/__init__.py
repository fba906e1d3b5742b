"""Training: texts to rows, a loss for each thing that learns, one trainer for all.

What is learned is a `Job` with its `Learner`: heads of a method, which brings their layers and loss
(`nfox.heads.base.Heads`), a model for Jacobi decoding, or a draft model.
"""
