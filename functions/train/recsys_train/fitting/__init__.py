"""From interactions to a fitted, evaluated model."""
