"""The training function: process events, read the CSV, fit a NeuMF, evaluate it and publish the version."""
