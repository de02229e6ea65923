// common/warp.cuh: reductions of a warp and of a block, in an order that is the same on every run.
//
// A warp folds as a butterfly: at distance 16, 8, 4, 2, 1 each lane combines its value with its
// partner's. The operator must be commutative bit for bit (a + b, max and argmax are), so that both
// partners get the same bits and, at the end, so do all lanes. It need not be associative: the tree
// is fixed. A block folds its warps' results the same way.
#pragma once
#include <cstdint>
#include <type_traits>

#include "launch.h"

namespace lmx {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = ~0u;

// ---- operators --------------------------------------------------------------------------------

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// A NaN does not win against a number, as in fmaxf.
struct Max {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return max(a, b);
  }
};

template <typename T>
struct ValueAt {
  T value;
  int32_t index;
};

// The larger value; of equal ones the lower index. A NaN on one side loses; NaNs on both sides are
// taken as equal, so that the result does not depend on the order even then.
struct ArgMax {
  template <typename T>
  __device__ ValueAt<T> operator()(ValueAt<T> a, ValueAt<T> b) const {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool tie = a.value == b.value || (a_nan && b_nan);
    const bool b_wins = tie ? b.index < a.index : a_nan || b.value > a.value;
    return b_wins ? b : a;
  }
};

// ---- warp: all 32 lanes call, all get the result ----------------------------------------------

// __shfl_xor_sync for any plain struct made of 4-byte words.
template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int lane_mask) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);
  struct Words {
    uint32_t word[sizeof(T) / 4];
  };
  Words words = __builtin_bit_cast(Words, value);
#pragma unroll
  for (uint32_t& word : words.word) word = __shfl_xor_sync(kFullWarp, word, lane_mask);
  return __builtin_bit_cast(T, words);
}

// Over each group of kWidth neighbouring lanes; every lane gets its own group's result.
template <int kWidth = kWarpSize, typename T, typename Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
  static_assert(kWidth > 0 && kWidth <= kWarpSize && (kWidth & (kWidth - 1)) == 0);
#pragma unroll
  for (int distance = kWidth / 2; distance > 0; distance /= 2)
    value = op(value, shuffle_xor(value, distance));
  return value;
}

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  return warp_reduce(value, Sum{});
}
template <typename T>
__device__ __forceinline__ T warp_max(T value) {
  return warp_reduce(value, Max{});
}
template <typename T>
__device__ __forceinline__ ValueAt<T> warp_argmax(ValueAt<T> value) {
  return warp_reduce(value, ArgMax{});
}

// ---- block: all kThreads threads of a one-dimensional block call, all get the result
// -----------------

// `scratch` lies in shared memory. Every warp folds the warps' results itself, which saves handing
// the total round through a third barrier. The barrier at the end lets the caller use `scratch`
// again.
template <int kThreads, typename T, typename Op>
__device__ __forceinline__ T block_reduce(T value, Op op, T (&scratch)[kThreads / kWarpSize]) {
  constexpr int kWarps = kThreads / kWarpSize;
  static_assert(kThreads % kWarpSize == 0 && kWarps <= kWarpSize && (kWarps & (kWarps - 1)) == 0);
  value = warp_reduce(value, op);
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  value = warp_reduce<kWarps>(scratch[threadIdx.x % kWarps], op);
  __syncthreads();
  return value;
}

// The sum of the values of all threads before this one; `total` gets that of all. For integers: in
// another order than a loop's.
template <int kThreads, typename T>
__device__ __forceinline__ T block_exclusive_sum(T value, T& total,
                                                 T (&scratch)[kThreads / kWarpSize]) {
  static_assert(kThreads % kWarpSize == 0 && std::is_integral_v<T>);
  const int lane = threadIdx.x % kWarpSize;
  T inclusive = value;
#pragma unroll
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const T other = __shfl_up_sync(kFullWarp, inclusive, distance);
    if (lane >= distance) inclusive += other;
  }
  if (lane == kWarpSize - 1) scratch[threadIdx.x / kWarpSize] = inclusive;
  __syncthreads();
  T before = 0;
  total = 0;
  for (int w = 0; w < kThreads / kWarpSize; ++w) {
    if (w == static_cast<int>(threadIdx.x / kWarpSize)) before = total;
    total += scratch[w];
  }
  __syncthreads();
  return before + inclusive - value;
}

}  // namespace lmx
