"""Access to S3 and DynamoDB without boto3, for a short cold start."""
