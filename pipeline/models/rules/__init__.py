"""How indices become embeddings."""
