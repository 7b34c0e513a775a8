"""HTTP code that the functions share: problem documents, request context, API key header, Lambda wiring, telemetry."""
