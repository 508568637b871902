"""Parquet files as source shards: a sample for each row. Needs pyarrow, which is imported when a file is read.

columns ─▶ rows ─▶ reader             which columns; a row's cells as members; all rows, or those of some row groups
table                                 the file, opened
"""
