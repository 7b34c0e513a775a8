"""The function `api`, which serves the HTTP routes for training, jobs, models, item catalogues and keys."""
