"""From the bytes of an image file to uint8 pixels of `image.size`.

headers ─▶ decoding (torchvision, pillow, turbojpeg, nvjpeg) ─▶ orientation ─▶ fitting ─▶ canvas

`transform` is all of it.
"""
