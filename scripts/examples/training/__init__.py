"""What the training scripts share: all but the model's task, and how new tokens are drawn.

command      options of the command line ──▶ a folder that is begun or gone on with ──▶ loop ──▶ picture
loop         the training loop: plain torch, with Accelerate for devices, processes and mixed precision
task         what a script adds to it
transformer  blocks of attention, causal or not
data         images to train on, images held out, their classes
drawing      tokens from logits
figures      bits per token: as a table, and beside what knowing no more than frequencies would cost
checkpoint   what a killed run needs to go on to the same bits
pictures     tokens as pictures
"""
