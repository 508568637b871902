"""`vqtok tokenize`.

command ─▶ job ─▶ worker          what is printed; one process; its loop over source shards
checked                           the plan, and every reason to refuse before anything is loaded
failures                          source shards that failed, processes that hang
replaced, other_sources           committed parts that are not, or no longer, of the configuration's source
"""
