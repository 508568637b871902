"""The records of a store, and the names of its files. Imports neither torch nor Zarr."""
