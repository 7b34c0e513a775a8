"""Tools that deploy the service to AWS: lock inputs, Lambda packages, offline Serverless builds and cost estimates."""
