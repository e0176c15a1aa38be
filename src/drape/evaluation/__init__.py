"""Measuring try-on: metrics inside the mask, and baselines that learned nothing."""
