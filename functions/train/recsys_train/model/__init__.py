"""The NeuMF network in TensorFlow, with its warm start, batches, optimiser and export to Keras."""
