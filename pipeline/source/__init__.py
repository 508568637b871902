"""From collections to batches of uint8 images.

shards ──▶ containers ──▶ Selection ──▶ images ──▶ image_batches
which      samples,       image, label,   uint8      full batches
           strictly       kept fields     [3,H,W]    and rejects
"""
