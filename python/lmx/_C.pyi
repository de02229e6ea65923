cpu_isa: str
"""The level of the kernels in use: "v3", "v4" or "amx"; "none": the processor is too old."""
torch_target: str
"""The oldest torch whose stable ABI the binary needs, as TORCH_TARGET_VERSION."""
