// tests/simt/simt.h: enough of CUDA's device language to run a .cu file on the CPU.
//
// A thread of a block is a fiber; a barrier or a warp operation is a rendezvous of fibers. g++
// compiles the kernel with -fsanitize=thread,alignment,..., but the calls that plants go to our own
// handlers (hooks.cpp), so every load and store is seen. launch() throws std::runtime_error for
//   - a race, within a block or between the blocks of one launch, in shared or in global memory;
//   - a read of memory that nobody wrote, or of cp.async's target before its wait;
//   - an access outside every exposed tensor, a write to an input, a misaligned vector access;
//   - a thread missing at a rendezvous, a shuffle from a lane that takes no part, a loop for ever;
//   - what C++ leaves undefined and a GPU does otherwise: shifts too far, casts too large, x / 0.
// Not emulated: blocks that wait for each other, TMA, mbarrier, wgmma, clusters, __launch_bounds__
// (g++ cannot hand a macro's value to the launch; the GPU refuses what is too large).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>  // types only: dim3, uint4, cudaStream_t
#include <math.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "harness.h"
#include "intrinsics.h"

// No sanitizer announces these calls; under these names they come to hooks.cpp.
extern "C" {
void* memcpy(void* to, const void* from, size_t bytes) noexcept __asm__("simt_memcpy");
void* memmove(void* to, const void* from, size_t bytes) noexcept __asm__("simt_memmove");
void* memset(void* to, int value, size_t bytes) noexcept __asm__("simt_memset");
}

#undef __launch_bounds__
#undef __forceinline__
#undef __shared__
#undef __constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __shared__ static_assert(false, "shared memory is reached by lmx::shared_memory<T>()");
#define __constant__ static_assert(false, "constants are constexpr arrays or kernel parameters");

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_dim())
#define gridDim (::simt::grid_dim())
constexpr int warpSize = 32;

// ---- block barriers ---------------------------------------------------------------------------
inline void __syncthreads(SIMT_SITE) { simt::meet_block("__syncthreads", site, nullptr, nullptr); }
inline int __syncthreads_count(int predicate, SIMT_SITE) {
  return simt::count_in_block("__syncthreads_count", site, predicate != 0);
}
inline int __syncthreads_or(int predicate, SIMT_SITE) {
  return simt::count_in_block("__syncthreads_or", site, predicate != 0) > 0;
}
inline int __syncthreads_and(int predicate, SIMT_SITE) {
  return simt::count_in_block("__syncthreads_and", site, predicate == 0) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned, SIMT_SITE) {
  simt::fail(site, "__nanosleep: no thread can wait here for what another writes");
}
inline void __trap(SIMT_SITE) { simt::fail(site, "__trap"); }

// ---- warp operations --------------------------------------------------------------------------
inline void __syncwarp(unsigned mask = ~0u, SIMT_SITE) {
  simt::meet_warp("__syncwarp", site, mask, nullptr, nullptr, true);
}

namespace simt {

template <typename T>
uint64_t to_bits(T value) {
  static_assert(std::is_arithmetic_v<T> ? sizeof(T) == 4 || sizeof(T) == 8
                                        : std::is_same_v<T, __half> || std::is_same_v<T, __half2> ||
                                              std::is_same_v<T, __nv_bfloat16> ||
                                              std::is_same_v<T, __nv_bfloat162>,
                "CUDA shuffles 32- and 64-bit numbers, halves and pairs of halves");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
  T value;
  __builtin_memcpy(static_cast<void*>(&value), &bits, sizeof value);
  return value;
}

inline int segment(int lane, int width) { return lane & ~(width - 1); }

}  // namespace simt

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_SITE) {
  const int source = simt::segment(simt::lane_index(), width) + (lane & (width - 1));
  return simt::from_bits<T>(simt::shuffle("__shfl_sync", site, mask, simt::to_bits(value), source));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_SITE) {
  const int me = simt::lane_index(), other = me ^ lane_mask;
  const int source = other < simt::segment(me, width) + width ? other : me;
  return simt::from_bits<T>(
      simt::shuffle("__shfl_xor_sync", site, mask, simt::to_bits(value), source));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  const int me = simt::lane_index(), other = me + static_cast<int>(delta);
  const int source = other < simt::segment(me, width) + width ? other : me;
  return simt::from_bits<T>(
      simt::shuffle("__shfl_down_sync", site, mask, simt::to_bits(value), source));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  const int me = simt::lane_index(), other = me - static_cast<int>(delta);
  const int source = other >= simt::segment(me, width) ? other : me;
  return simt::from_bits<T>(
      simt::shuffle("__shfl_up_sync", site, mask, simt::to_bits(value), source));
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE) {
  return simt::reduce("__ballot_sync", site, mask, predicate ? 1u << simt::lane_index() : 0u,
                      [](uint32_t a, uint32_t b) { return a | b; });
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE) {
  return __ballot_sync(mask, predicate, site) == mask;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_SITE) {
  return simt::match("__match_any_sync", site, mask, simt::to_bits(value));
}
template <typename T>
unsigned __match_all_sync(unsigned mask, T value, int* all, SIMT_SITE) {
  *all = simt::match("__match_all_sync", site, mask, simt::to_bits(value)) == mask;
  return *all ? mask : 0;
}

// T is int or unsigned. The bits travel as uint32_t; only min and max care for the sign.
#define SIMT_REDUCE(name, expression)                                                              \
  template <typename T>                                                                            \
  T name(unsigned mask, T value, SIMT_SITE) {                                                      \
    static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);                          \
    return static_cast<T>(                                                                         \
        simt::reduce(#name, site, mask, static_cast<uint32_t>(value), [](uint32_t x, uint32_t y) { \
          [[maybe_unused]] const T a = static_cast<T>(x), b = static_cast<T>(y);                   \
          return static_cast<uint32_t>(expression);                                                \
        }));                                                                                       \
  }
SIMT_REDUCE(__reduce_add_sync, x + y)
SIMT_REDUCE(__reduce_and_sync, x& y)
SIMT_REDUCE(__reduce_or_sync, x | y)
SIMT_REDUCE(__reduce_xor_sync, x ^ y)
SIMT_REDUCE(__reduce_min_sync, b < a ? b : a)
SIMT_REDUCE(__reduce_max_sync, a < b ? b : a)
#undef SIMT_REDUCE

// ---- memory -----------------------------------------------------------------------------------
// The harness checks these accesses itself, so the compiler shall not announce them a second time.
#define SIMT_UNCHECKED __attribute__((no_sanitize("thread"), noinline))

template <typename T>
SIMT_UNCHECKED T __ldg(const T* p, SIMT_SITE) {
  simt::touch_global(p, sizeof(T), simt::Access::constant, site);
  return *p;
}

// One fiber runs at a time, so a plain read-modify-write is atomic.
#define SIMT_ATOMIC(name, expression)                                 \
  template <typename T>                                               \
  SIMT_UNCHECKED T name(T* p, std::type_identity_t<T> v, SIMT_SITE) { \
    static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4);         \
    simt::touch(p, sizeof(T), simt::Access::atomic, site);            \
    const T old = *p;                                                 \
    *p = expression;                                                  \
    return old;                                                       \
  }
SIMT_ATOMIC(atomicAdd, old + v)
SIMT_ATOMIC(atomicSub, old - v)
SIMT_ATOMIC(atomicMin, v < old ? v : old)
SIMT_ATOMIC(atomicMax, old < v ? v : old)
SIMT_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
SIMT_ATOMIC(atomicAnd, old& v)
SIMT_ATOMIC(atomicOr, old | v)
SIMT_ATOMIC(atomicXor, old ^ v)
SIMT_ATOMIC(atomicExch, v)
#undef SIMT_ATOMIC

template <typename T>
SIMT_UNCHECKED T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v,
                           SIMT_SITE) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4);
  simt::touch(p, sizeof(T), simt::Access::atomic, site);
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}
