"""The one transport: placeholder until the transport lands in the next commit."""
