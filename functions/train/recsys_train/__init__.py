"""Events, CSV ingestion, NeuMF in TensorFlow, evaluation, publication."""
