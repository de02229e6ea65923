// csrc/attention/products.cuh: scores of a tile of keys and sums of its weighted values, in
// registers.
//
// A warp has 16 query rows. In lane 4 g + c, element v of a block of 8 keys or columns belongs to
// row g + 8 (v / 2), of keys 8 j + 2 c + v % 2: the layout of mma.m16n8k16, which sixteen-bit
// elements go through; float32 goes through fma in the same layout, its columns apart
// (first_column). A score takes its products in ascending steps of head_dim, a sum those of its
// keys, in every shape of tile alike: its bits do not depend on the shape.
#pragma once
#include "../common/exact.h"
#include "stage.cuh"

namespace lmx::attention {
template <typename T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  if constexpr (std::is_same_v<T, __half>)
    ptx::mma_m16n8k16_f16(d, a, b);
  else
    ptx::mma_m16n8k16_bf16(d, a, b);
}

template <int kBlocks>
__device__ __forceinline__ void fill(float (&x)[kBlocks][4], float value) {
#pragma unroll
  for (auto& block : x)
#pragma unroll
    for (float& v : block) v = value;
}

// ---- scores: x[j] += 16 query rows times keys 8 j .. 8 j + 7
// -------------------------------------- `query` and `keys` start at row 0 of a tile; the warp's
// own rows start at `row` and `key`.
template <typename T, int kPitch, int kBlocks>
__device__ __forceinline__ void multiply_keys(float (&x)[kBlocks][4], const char* query, int row,
                                              const char* keys, int key, int head_dim) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kPitch / 32; ++k) {
    if (k * 16 >= head_dim) break;
    uint32_t a[4];
    ptx::ldmatrix<4>(a, query + place<kPitch>(row + lane % 16, 2 * k + lane / 16));
    if constexpr (kBlocks == 1) {
      uint32_t b[2];
      ptx::ldmatrix<2>(b, keys + place<kPitch>(key + lane % 8, 2 * k + lane / 8 % 2));
      mma<T>(x[0], a, b[0], b[1]);
    } else {
#pragma unroll
      for (int j = 0; j < kBlocks; j += 2) {
        uint32_t b[4];
        const int at = key + 8 * j + lane / 16 * 8 + lane % 8;
        ptx::ldmatrix<4>(b, keys + place<kPitch>(at, 2 * k + lane / 8 % 2));
        mma<T>(x[j], a, b[0], b[1]);
        mma<T>(x[j + 1], a, b[2], b[3]);
      }
    }
  }
}

template <int kPitch>
__device__ __forceinline__ float4 four(const char* tile, int row, int unit) {
  return *reinterpret_cast<const float4*>(tile + place<kPitch>(row, unit));
}
__device__ __forceinline__ float fma4(float4 a, float4 b, float sum) {
  sum = exact::fma(a.x, b.x, sum);
  sum = exact::fma(a.y, b.y, sum);
  sum = exact::fma(a.z, b.z, sum);
  return exact::fma(a.w, b.w, sum);
}
template <int kPitch, int kBlocks>
__device__ __forceinline__ void multiply_keys_f32(float (&x)[kBlocks][4], const char* query,
                                                  int row, const char* keys, int key,
                                                  int head_dim) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll 2
  for (int k = 0; k < head_dim / 4; ++k) {
    const float4 a = four<kPitch>(query, row + g, k), b = four<kPitch>(query, row + g + 8, k);
#pragma unroll
    for (int j = 0; j < kBlocks; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float4 y = four<kPitch>(keys, key + 8 * j + 2 * c + i, k);
        x[j][i] = fma4(a, y, x[j][i]);
        x[j][2 + i] = fma4(b, y, x[j][2 + i]);
      }
  }
}

// ---- weights in shared memory, where several warps need them ----------------------------------
// Row `row` + g (and + 8), from key `key` on; `w` is as the scores were.
template <typename T, int kPitch, int kBlocks>
__device__ __forceinline__ void store_weights(char* weights, int row, int key,
                                              const float (&w)[kBlocks][4]) {
  constexpr int kUnit = 16 / sizeof(T);  // keys
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
  for (int j = 0; j < kBlocks; ++j)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int first = key + 8 * j + 2 * c;
      char* at = weights + place<kPitch>(row + g + 8 * h, first / kUnit);
      const auto two = pack(T{}, w[j][2 * h], w[j][2 * h + 1]);
      reinterpret_cast<std::remove_cv_t<decltype(two)>*>(at)[first % kUnit / 2] = two;
    }
}

// ---- sums: sum[j] += weights of kKeys keys times columns of values
// -------------------------------- The first of the two neighbouring columns that elements 0 and 1
// (2 and 3) of block j are.
template <typename T>
__device__ __forceinline__ int first_column(int j) {
  const int c = threadIdx.x % 4;
  return std::is_same_v<T, float> ? j / 2 * 16 + 4 * c + j % 2 * 2 : 8 * j + 2 * c;
}

// fragment(a, k) has the weights of keys 16 k .. 16 k + 15; columns from `column` on.
template <typename T, int kPitch, int kKeys, int kBlocks, typename Fragment>
__device__ __forceinline__ void multiply_values(float (&sum)[kBlocks][4], const Fragment& fragment,
                                                const char* values, int column, int head_dim) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    uint32_t a[4], b[4];
    fragment(a, k);
#pragma unroll
    for (int j = 0; j < kBlocks; j += 2) {
      if (column + 8 * j >= head_dim) break;
      const int unit = column / 8 + j + lane / 16;
      ptx::ldmatrix<4, true>(b, values + place<kPitch>(16 * k + lane % 16, unit));
      mma<T>(sum[j], a, b[0], b[1]);
      mma<T>(sum[j + 1], a, b[2], b[3]);
    }
  }
}

template <int kPitch, int kWeightPitch, int kKeys, int kBlocks>
__device__ __forceinline__ void multiply_values_f32(float (&sum)[kBlocks][4], const char* weights,
                                                    int row, const char* values, int column,
                                                    int head_dim) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll 1
  for (int k = 0; k < kKeys; k += 4) {
    const float4 a4 = four<kWeightPitch>(weights, row + g, k / 4);
    const float4 b4 = four<kWeightPitch>(weights, row + g + 8, k / 4);
    const float a[4] = {a4.x, a4.y, a4.z, a4.w}, b[4] = {b4.x, b4.y, b4.z, b4.w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < kBlocks; j += 2) {
        if (column + 8 * j >= head_dim) break;
        const float4 y = four<kPitch>(values, k + i, column / 4 + 2 * j + c);
        const float v[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
        for (int h = 0; h < 4; ++h) {
          float (&s)[4] = sum[j + h / 2];
          s[h % 2] = exact::fma(a[i], v[h], s[h % 2]);
          s[2 + h % 2] = exact::fma(b[i], v[h], s[2 + h % 2]);
        }
      }
  }
}
}  // namespace lmx::attention
