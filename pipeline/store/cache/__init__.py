"""Local copies of the parts of a store that is far away, below a size."""
