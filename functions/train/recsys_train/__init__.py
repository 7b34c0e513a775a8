"""The function `train`: process events, read files, fit and evaluate models, and publish versions."""
