"""Try-on data: one record, one agnostic, readers for the layouts people have on disk.

sample         TryOnSample and TryOnBatch, what every reader yields
parse_labels   the label ids of a parse, their names, palette and mirror images
agnostic       which pixels a person loses before a net sees them
images         reading a file without trusting it
pose           OpenPose files to 18 joints with visibility
transforms     resizing, and the one conversion to [-1, 1]
viton_hd       reader for VITON-HD / HR-VITON folders (mannequin folders are such)
dresscode      reader for DressCode folders
cloth_mask     the mask of a cloth photographed on any background
shards         reader for data packed into tars by shard_writer; shard_* are its parts
loader         order, cache, mirror images and batches for a training run
"""
