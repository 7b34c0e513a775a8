"""HTTP code that several Lambda functions use, such as problem documents, middleware, authentication and telemetry."""
