"""Verify a deployment in an AWS account: deploy a new stage, use it, measure it, check it and delete it."""
