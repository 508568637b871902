"""What a source shard is made of: strict readers of tars, and samples from any place in them."""
