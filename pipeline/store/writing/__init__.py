"""Parts and the hierarchy around them, complete and durable before they are committed."""
