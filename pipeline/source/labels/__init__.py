"""Labels: what `source.label` finds of a sample, and the index that it becomes.

labels ─▶ tables, values          a sample to its index
classes                           the names of a collection's classes, frozen when its store is born
"""
