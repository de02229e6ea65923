cpu_isa: str  # "v3", "v4" or "amx": the level of the kernels in use; "none": the processor is too old
torch_target: str  # the oldest torch whose stable ABI the binary needs, as TORCH_TARGET_VERSION
