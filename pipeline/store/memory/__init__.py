"""Where chunks lie in memory, so that rows of any of them are gathered in one call.

space ─▶ reserved (libc, spans)       a range of addresses of this process, with files and memory mapped into it
      └▶ elsewhere                    the plain way, where that range cannot be had
buffers, small_blocks                 memory for decoded chunks, used again
"""
