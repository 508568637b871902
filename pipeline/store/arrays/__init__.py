"""Arrays of parts, from files to rows.

storage            names, dtypes, chunks and codecs of the format
opening ─▶ mapped or chunked          one array of one part: its file mapped, or read through zarr-python
parts              the arrays of one part
row_array, row_texts                  one array of all parts, as if it were one
"""
