"""Files of a folder as a source shard: read in the order of their keys, several at a time."""
