"""HTTP code that several functions use, such as problem documents, middleware, authentication and telemetry."""
