"""HTTP shared by the functions: problem documents, request logging, the API key header, Lambda wiring."""
