"""`vqtok status`: how far a job is, from its store alone."""
