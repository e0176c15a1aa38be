"""Networks: `parallel_unet` the net, `config` its settings, `sizes` named settings, `conditions` what it is told.

`layers`, `attention`, `embeddings` and `body` are what it is made of; `count` says what it costs.
"""
