// csrc/layerskip/products.cuh: sums of products of a tile in registers, chunk by chunk of K.
//
// Sixteen-bit elements go through mma.m16n8k16 with weights as the 16-row operand, so that padding
// is to 8 rows of x; float32 through fma. Every sum takes its products in ascending steps of K, for
// every shape of tile alike: that is why its bits do not depend on the shape.
#pragma once
#include "../common/exact.h"
#include "stage.cuh"

namespace lmx::layerskip {
// ---- weights as fragments of mma --------------------------------------------------------------
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&both);
  } else {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&both);
  }
}
// A byte as a float, without a conversion instruction: 2^23 + byte has the byte in its last bits.
__device__ __forceinline__ float float_of(uint32_t byte) {
  return __uint_as_float(0x4b000000u | byte) - 8388608.f;
}
__device__ __forceinline__ float signed_float_of(uint32_t flipped) {  // of byte ^ 0x80
  return __uint_as_float(0x4b000000u | flipped) - (8388608.f + 128.f);
}
__device__ __forceinline__ uint32_t two_bytes(const char* p) {
  return *reinterpret_cast<const uint16_t*>(p);
}
__device__ __forceinline__ float half_at(const char* p) {
  return static_cast<float>(*reinterpret_cast<const __half*>(p));
}

// Register r and r + 2 of both fragments of load_weights, from a weight row in shared memory.
template <typename T, Format kFormat>
__device__ __forceinline__ void expand_weights(uint32_t (&a)[2][4], int r, const char* row, int k) {
  const int c2 = threadIdx.x % 4 * 2;
  if constexpr (kFormat == Format::int8) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t q = two_bytes(row + k + 8 * i + c2) ^ 0x8080u;
      a[i / 2][r + i % 2 * 2] = pack<T>(signed_float_of(q & 0xff), signed_float_of(q >> 8));
    }
    return;
  }
  const char* block = row + k / kBlockWeights * unit_bytes(kFormat, DType{});
  if constexpr (kFormat == Format::q8_0) {
    const float d = half_at(block);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t q = two_bytes(block + 2 + 8 * i + c2) ^ 0x8080u;
      a[i / 2][r + i % 2 * 2] = pack<T>(d * signed_float_of(q & 0xff), d * signed_float_of(q >> 8));
    }
  } else if constexpr (kFormat == Format::q4_0 || kFormat == Format::q4_1) {
    constexpr bool kHasMin = kFormat == Format::q4_1;
    const float d = half_at(block), m = kHasMin ? half_at(block + 2) : 0.f;
    const auto weight = [&](uint32_t q) {
      return kHasMin ? exact::fma(d, float_of(q), m) : d * (float_of(q) - 8.f);
    };
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // low halves are the first 16 columns, high ones the others
      const uint32_t q = two_bytes(block + (kHasMin ? 4 : 2) + 8 * i + c2);
      a[0][r + 2 * i] = pack<T>(weight(q & 15), weight(q >> 8 & 15));
      a[1][r + 2 * i] = pack<T>(weight(q >> 4 & 15), weight(q >> 12));
    }
  }
}

// 16 weight rows from `row` on, 32 columns from k on: two fragments. In lane 4 g + c register r of
// a fragment holds columns 2 c + 8 (r / 2) and the next one of row g + 8 (r % 2).
template <typename T, Format kFormat>
__device__ __forceinline__ void load_weights(uint32_t (&a)[2][4], const char* tile, int row,
                                             int k) {
  const int lane = threadIdx.x % 32;
  if constexpr (kFormat == Format::dense) {
#pragma unroll
    for (int h = 0; h < 2; ++h)
      ptx::ldmatrix<4>(a[h], tile + place<128>(row + lane % 16, (k + 16 * h + lane / 16 * 8) * 2));
  } else {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const char* at = tile + (row + lane / 4 + 8 * r) * ChunkOf<T, kFormat>::kPitch;
      expand_weights<T, kFormat>(a, r, at, k);
    }
  }
}

// ---- sixteen bits: kW weight rows x kX rows, shared out to kWarpsW x kWarpsX warps --------------
template <typename T, Format kFormat, int kW, int kX, int kWarpsW, int kWarpsX>
struct MmaProducts {
  static constexpr int kWarpW = kW / kWarpsW, kWarpX = kX / kWarpsX;
  static constexpr int kI = kWarpW / 16, kJ = kWarpX / 8;
  float sum[kI][kJ][4];

  __device__ __forceinline__ void fill(float value) {
#pragma unroll
    for (auto& a : sum)
#pragma unroll
      for (auto& b : a)
#pragma unroll
        for (float& v : b) v = value;
  }
  __device__ __forceinline__ void add(const MmaProducts& other) {
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int j = 0; j < kJ; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) sum[i][j][v] += other.sum[i][j][v];
  }
  __device__ __forceinline__ static int first_w() { return threadIdx.x / 32 / kWarpsX * kWarpW; }
  __device__ __forceinline__ static int first_x() { return threadIdx.x / 32 % kWarpsX * kWarpX; }

  // Fragments of rows of x, 16 columns from k on. Beyond `left` rows nothing is read.
  __device__ __forceinline__ static void load_rows(uint32_t (&b)[kJ / 2][4], const char* x, int k,
                                                   int left) {
    const int lane = threadIdx.x % 32, row = first_x() + lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int j = 0; j < kJ / 2; ++j)
      if (j * 16 < left)
        ptx::ldmatrix<4>(b[j], x + place<128>(row + j * 16, (k + lane / 8 % 2 * 8) * 2));
  }
  __device__ __forceinline__ static void multiply(float (&d)[kJ][4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[kJ / 2][4], int left) {
#pragma unroll
    for (int j = 0; j < kJ; ++j) {
      if (j * 8 >= left) continue;
      const uint32_t two[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
      if constexpr (std::is_same_v<T, __half>)
        ptx::mma_m16n8k16_f16(d[j], a, two);
      else
        ptx::mma_m16n8k16_bf16(d[j], a, two);
    }
  }

  // One chunk; rows of x beyond `rows` are zeros up to a multiple of 16.
  __device__ __forceinline__ void add_chunk(const char* w, const char* x, int rows) {
    const int left = rows - first_x();
    if (kWarpsX > 1 && left <= 0) return;  // the whole warp
    uint32_t a[2][4], b[2][kJ / 2][4];
#pragma unroll
    for (int k = 0; k < 64; k += 32) {
      if constexpr (kI == 1) {  // keeps few fragments of x in registers
        load_weights<T, kFormat>(a, w, first_w(), k);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          load_rows(b[0], x, k + 16 * h, left);
          multiply(sum[0], a[h], b[0], left);
        }
      } else {
        load_rows(b[0], x, k, left);
        load_rows(b[1], x, k + 16, left);
#pragma unroll
        for (int i = 0; i < kI; ++i) {
          load_weights<T, kFormat>(a, w, first_w() + i * 16, k);
          multiply(sum[i], a[0], b[0], left);
          multiply(sum[i], a[1], b[1], left);
        }
      }
    }
  }

  // to[x row][weight row]
  template <int kPitch>
  __device__ __forceinline__ void store(float* to) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int j = 0; j < kJ; ++j)
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          const int w = first_w() + i * 16 + lane / 4 + v / 2 * 8;
          to[(first_x() + j * 8 + lane % 4 * 2 + v % 2) * kPitch + w] = sum[i][j][v];
        }
  }
};

// ---- float32: thread t has weight rows t % 16 + 16 i, rows of x t / 16 + kStep j ----------------
template <int kW, int kX, int kThreads>
struct FmaProducts {
  static constexpr int kStep = kThreads / 16, kI = kW / 16, kJ = kX / kStep;
  float sum[kI][kJ];

  __device__ __forceinline__ void fill(float value) {
#pragma unroll
    for (auto& a : sum)
#pragma unroll
      for (float& v : a) v = value;
  }
  __device__ __forceinline__ void add(const FmaProducts& other) {
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int j = 0; j < kJ; ++j) sum[i][j] += other.sum[i][j];
  }
  __device__ __forceinline__ static float4 load(const char* tile, int row, int k) {
    return *reinterpret_cast<const float4*>(tile + place<128>(row, k * 4));
  }
  __device__ __forceinline__ void add_chunk(const char* w, const char* x, int rows) {
    const int tw = threadIdx.x % 16, tx = threadIdx.x / 16;
#pragma unroll 2
    for (int k = 0; k < 32; k += 4) {
      float4 a[kI];
#pragma unroll
      for (int i = 0; i < kI; ++i) a[i] = load(w, tw + 16 * i, k);
#pragma unroll
      for (int j = 0; j < kJ; ++j) {
        if (j * kStep >= rows) continue;
        const float4 b = load(x, tx + kStep * j, k);
#pragma unroll
        for (int i = 0; i < kI; ++i) {
          float s = exact::fma(a[i].x, b.x, sum[i][j]);
          s = exact::fma(a[i].y, b.y, s);
          s = exact::fma(a[i].z, b.z, s);
          sum[i][j] = exact::fma(a[i].w, b.w, s);
        }
      }
    }
  }
  template <int kPitch>
  __device__ __forceinline__ void store(float* to) const {
#pragma unroll
    for (int i = 0; i < kI; ++i)
#pragma unroll
      for (int j = 0; j < kJ; ++j)
        to[(threadIdx.x / 16 + kStep * j) * kPitch + threadIdx.x % 16 + 16 * i] = sum[i][j];
  }
};
}  // namespace lmx::layerskip
