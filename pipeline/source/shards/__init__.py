"""Which source shards a configuration names, and where their bytes come from.

patterns ─▶ find ─▶ opening (files, objects, command)
"""
