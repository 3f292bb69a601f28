"""The HTTP API: sessions, attach tickets, sign-in, the OpenAPI document and the web pages."""
