"""Load all kernels, from the cache if possible, before the test modules import them one by one."""

from ccop_pretrain.proposals.fast_search.compilation import load_kernels

load_kernels()
