"""What it takes to put the service on AWS: locks, packages, and the Serverless template compiled without an account."""
