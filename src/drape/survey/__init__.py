"""A look at a data set before anybody trains on it: what is in the files, what is wrong, what it looks like."""
