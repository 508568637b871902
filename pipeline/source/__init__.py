"""From tar files to batches of uint8 images.

find_source_shards ──▶ SampleReader ──▶ Selection ──▶ ImageTransform ──▶ image_batches
which tars             strict tar        image, label,   uint8 [3,H,W]     full batches
                       → samples         kept fields                       and rejects
"""
