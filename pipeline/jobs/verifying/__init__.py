"""`vqtok verify`, in three levels.

commits ─▶ contents ─▶ reencoding     records and sizes; keys, checksums and tokens; a share of the rows encoded again
"""
