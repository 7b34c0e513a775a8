"""Delete the model versions, uploads and leftover files that the retention policy no longer keeps."""
