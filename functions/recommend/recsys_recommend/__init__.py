"""The function `recommend`: HTTP routes for recommendations, with NumPy but without TensorFlow and pandas."""
