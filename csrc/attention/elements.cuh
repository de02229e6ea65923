// csrc/attention/elements.cuh: elements of a dtype on the device, 16 bytes at a time where the
// addresses allow it.
#pragma once
#include "../common/dtype.cuh"
#include "../common/hostdev.h"
#include "../common/launch.h"
#include "../common/ptx.cuh"

namespace lmx::attention {
__device__ __forceinline__ bool in_sixteens(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

template <typename T>
struct alignas(16) Sixteen {  // bytes
  static constexpr int kCount = 16 / sizeof(T);
  T element[kCount];
  __device__ __forceinline__ uint4& whole() { return *reinterpret_cast<uint4*>(this); }
};
template <typename T>
__device__ __forceinline__ Sixteen<T> load_sixteen(const T* from) {
  Sixteen<T> v;
  if (in_sixteens(from)) {
    v.whole() = *reinterpret_cast<const uint4*>(from);
  } else {
#pragma unroll
    for (int i = 0; i < Sixteen<T>::kCount; ++i) v.element[i] = from[i];
  }
  return v;
}
template <typename T>
__device__ __forceinline__ void store_sixteen(T* to, Sixteen<T> v) {
  if (in_sixteens(to)) {
    *reinterpret_cast<uint4*>(to) = v.whole();
    return;
  }
#pragma unroll
  for (int i = 0; i < Sixteen<T>::kCount; ++i) to[i] = v.element[i];
}

// Two neighbours, rounded to T, as they lie in memory.
__device__ __forceinline__ float2 pack(float, float low, float high) { return {low, high}; }
__device__ __forceinline__ uint32_t pack(__half, float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}
__device__ __forceinline__ uint32_t pack(__nv_bfloat16, float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}
}  // namespace lmx::attention
