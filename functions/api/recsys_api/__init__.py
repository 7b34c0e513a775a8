"""The function `api`: HTTP routes for training, jobs, models and keys."""
