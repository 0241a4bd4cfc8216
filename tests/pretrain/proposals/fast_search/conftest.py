"""Load the kernels, from their cache if they are there, before the tests' modules import them one by one."""

from ccop_pretrain.proposals.fast_search.compilation import load_kernels

load_kernels()
