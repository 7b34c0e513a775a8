"""The function `recommend`, which serves recommendations with NumPy and imports neither TensorFlow nor pandas."""
