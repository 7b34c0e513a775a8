"""Access S3 and DynamoDB without boto3, because the import of boto3 would lengthen a cold start."""
