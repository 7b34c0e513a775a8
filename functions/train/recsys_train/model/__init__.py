"""The trainable NeuMF in TensorFlow and its closed-form start."""
