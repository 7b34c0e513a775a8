// A file of its own, because the page's Content-Security-Policy permits no inline scripts.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
