"""The trainer: loss, averaged weights, learning-rate phases, records of the run, and the loop."""
