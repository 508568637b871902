"""Arrays of parts, from files to rows.

storage            names, dtypes, chunks and codecs of the format
stored_array       what the store's records say of an array
opening ─▶ chunk_format ─▶ mapped ─▶ decoding     one array of one part: its metadata compared with the records, its
                   chunk file mapped or read in ranges, its chunks checked and decoded
parts              the arrays of one part
row_array ─▶ chunks, row_texts      one array of all parts, as if it were one: its rows, and the chunks that hold them
"""
