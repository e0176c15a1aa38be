"""The mathematics of diffusion: pure functions over tensors, indexed by log_snr."""
