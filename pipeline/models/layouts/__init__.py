"""Block layouts: values that say which tokens of an image make which block, in which order.

layout      what every layout is: name, block lengths, split and join
cuts        those that cut one grid: raster, quadrants, diagonal
scales      a grid for each of several scales: multiscale
known       which of them a store was made with
"""
