"""What is known of labels before any is read: the names of the classes, and tables of labels.

names      found once, and frozen when a store is born
tables     files of labels beside the images
"""
