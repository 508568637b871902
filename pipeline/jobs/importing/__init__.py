"""`vqtok import`: a published tokenizer as a tokenizer folder.

job    reads it by its kind, tries it out, writes the folder
"""
