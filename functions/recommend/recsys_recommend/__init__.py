"""HTTP for recommending: NumPy only, no TensorFlow, no pandas."""
