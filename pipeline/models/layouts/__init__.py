"""Block layouts: what the blocks of an image are, in which order."""
