"""The network in TensorFlow, its warm start, its batches, its optimiser and its export."""
