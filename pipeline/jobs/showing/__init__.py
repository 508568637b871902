"""`vqtok show`: all that a store knows of a key.

job ─▶ finding, in each part        text: what is printed of it
"""
