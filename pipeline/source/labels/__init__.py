"""Labels: what `source.label` finds of a sample, and the index that it becomes.

labels ─▶ table, values
"""
