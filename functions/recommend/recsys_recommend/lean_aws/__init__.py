"""S3 and DynamoDB reads without boto3, for a short cold start."""
