"""Training: texts to rows, a loss for everything that is trained, and one trainer.

A `Job` says what is trained on which data, its `Learner` computes the loss. There are three kinds:
heads of a method, which bring their layers and loss (`nfox.heads.base.Heads`), a model for Jacobi
decoding (CLLM), and a draft model.
"""
