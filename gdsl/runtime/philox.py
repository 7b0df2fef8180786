import torch
CPP_SOURCE = "static inline float gdsl_uniform(uint64_t seed, uint32_t salt, uint64_t n) { return 0.5f; }"
def uniform(seed, salt, shape, device, dtype): return torch.full(shape, 0.5, dtype=dtype)
