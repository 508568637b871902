"""`vqtok tokenize`.

command ─▶ job ─▶ worker          what is printed; one process; its loop over source shards
failures                          source shards that failed, processes that hang
replaced, other_sources           committed parts that are not, or no longer, of the configuration's source
"""
