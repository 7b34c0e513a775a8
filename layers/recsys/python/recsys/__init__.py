"""What every function shares: errors, keys, the model's arithmetic, the artifact, the two ports."""
