"""What is known of labels before any is read: the names of the classes, and tables of labels.

finding    what a collection tells, frozen when a store is born
names      as files and stores have them
tables     files of labels beside the images
"""
