"""Fit a network to interactions, from the split and the selection of hyperparameters to training and evaluation."""
