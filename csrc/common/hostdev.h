// common/hostdev.h: what host and device code share. No torch, no CUDA headers.
#pragma once
#include <cstdint>
#ifdef __CUDACC__
#define LMX_HD __host__ __device__ inline
#else
#define LMX_HD inline
#endif

namespace lmx {
enum class DType : int { f32, f16, bf16 };

template <typename T>
LMX_HD constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}
}  // namespace lmx
