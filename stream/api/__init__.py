"""The HTTP API beside Kafka: what the topics say now, and a way into them (docs/http-api.md)."""
