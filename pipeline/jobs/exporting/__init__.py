"""Tokens of a store in the formats that trainers read.

job ─▶ work: what is written, in pieces ─▶ formats: the files of each format
 │       ├─▶ contents: order, views and number of examples
 │       └─▶ examples: rows of the store as they are written ─▶ sequences: with the tokens of a language model around
 ├─▶ processes: several of them write pieces
 └─▶ place: OUT.partial, which becomes OUT when all pieces are there ─▶ disk: files that are whole or not there
"""
