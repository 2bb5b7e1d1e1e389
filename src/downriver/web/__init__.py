"""What answers over HTTP: webhooks, the JSON API, health."""
