"""Fit a network to interactions: split, select hyperparameters, train, evaluate."""
