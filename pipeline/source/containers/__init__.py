"""What a source shard may be: the protocol that jobs read it through, and a room for each kind."""
