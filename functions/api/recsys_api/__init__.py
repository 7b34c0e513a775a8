"""HTTP for training, jobs, models and keys."""
