"""The model for serving: arithmetic, artifact files, ranking."""
