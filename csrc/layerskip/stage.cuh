// csrc/layerskip/stage.cuh: a chunk of K of weight rows and of rows of x, from global to shared
// memory.
//
// A row's chunk has 128 bytes where elements are multiplied as they are stored; their 16-byte units
// lie exclusive-or'ed with the row, so that eight rows of a unit are in eight different banks.
// Bytes behind a row's end are zeros and are not read.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../common/launch.h"
#include "../common/ptx.cuh"
#include "weights.h"

namespace lmx::layerskip {
// How a chunk of a row lies in memory: kChunk elements, kBytes bytes in global memory, kPitch from
// row to row in shared memory; the fastest copies have kUnit bytes, the smallest kElement.
template <typename T, Format kFormat>
struct ChunkOf {
  static constexpr int kChunk = 64, kBytes = kChunk / kBlockWeights * unit_bytes(kFormat, DType{});
  static constexpr int kPitch = kBytes + (kFormat == Format::q8_0 ? 4 : 0);  // fewer bank conflicts
  static constexpr int kUnit = 4, kElement = 1;
};
template <typename T>
struct ChunkOf<T, Format::dense> {
  static constexpr int kChunk = 128 / sizeof(T), kBytes = 128, kPitch = 128;
  static constexpr int kUnit = 16, kElement = sizeof(T);
};
template <typename T>
struct ChunkOf<T, Format::int8> {
  static constexpr int kChunk = 64, kBytes = 64, kPitch = 80;
  static constexpr int kUnit = 16, kElement = 1;
};

// Where byte `byte` of row `row` lies in a tile.
template <int kPitch>
__device__ __forceinline__ int place(int row, int byte) {
  if constexpr (kPitch == 128)
    return row * kPitch + ((byte / 16 ^ row % 8) * 16 | byte % 16);
  else
    return row * kPitch + byte;
}

template <int kBytes>
__device__ __forceinline__ void copy_element(char* to, const char* from, bool valid) {
  if constexpr (kBytes == 4)
    *reinterpret_cast<uint32_t*>(to) = valid ? *reinterpret_cast<const uint32_t*>(from) : 0;
  else if constexpr (kBytes == 2)
    *reinterpret_cast<uint16_t*>(to) = valid ? *reinterpret_cast<const uint16_t*>(from) : 0;
  else
    *to = valid ? *from : 0;
}

// kUnit bytes of which the first `valid` exist; by elements if that is a part of them.
template <int kUnit, int kElement>
__device__ __forceinline__ void copy_unit(char* to, const char* from, int64_t valid) {
  if constexpr (kUnit >= 4) {
    if (valid >= kUnit || valid <= 0) {
      ptx::cp_async<kUnit>(to, valid > 0 ? from : nullptr, valid > 0);
      return;
    }
  }
#pragma unroll 1
  for (int i = 0; i < kUnit; i += kElement) copy_element<kElement>(to + i, from + i, i < valid);
}

// The largest unit that addresses and strides allow, of 16, 4 and less.
__device__ __forceinline__ int unit_of(const void* base, int64_t stride) {
  const auto bits = reinterpret_cast<uintptr_t>(base) | static_cast<uintptr_t>(stride);
  return bits % 16 == 0 ? 16 : bits % 4 == 0 ? 4 : 1;
}

// Chunk `chunk` of `rows` rows; row(i) is the address of row i, null for zeros, and each has
// `row_bytes` bytes.
template <typename Chunk, int kThreads, int kUnit, typename RowAt>
__device__ __forceinline__ void copy_units(char* tile, int rows, int64_t chunk, int64_t row_bytes,
                                           const RowAt& row) {
  constexpr int kUnits = Chunk::kBytes / kUnit;
  constexpr int kStep = Chunk::kElement < kUnit ? Chunk::kElement : kUnit;
  static_assert(Chunk::kBytes % kUnit == 0);
  const int64_t begin = chunk * Chunk::kBytes;
#pragma unroll 2
  for (int e = threadIdx.x; e < rows * kUnits; e += kThreads) {
    const int r = e / kUnits, byte = e % kUnits * kUnit;
    const char* from = row(r);
    const int64_t valid = from ? row_bytes - begin - byte : 0;
    copy_unit<kUnit, kStep>(tile + place<Chunk::kPitch>(r, byte), from + begin + byte, valid);
  }
}
template <typename Chunk, int kThreads, typename RowAt>
__device__ __forceinline__ void copy_chunk(char* tile, int rows, int64_t chunk, int64_t row_bytes,
                                           int unit, const RowAt& row) {
  if (unit >= Chunk::kUnit)
    return copy_units<Chunk, kThreads, Chunk::kUnit>(tile, rows, chunk, row_bytes, row);
  if constexpr (Chunk::kUnit > 4)
    if (unit == 4) return copy_units<Chunk, kThreads, 4>(tile, rows, chunk, row_bytes, row);
  if constexpr (Chunk::kElement < 4)
    copy_units<Chunk, kThreads, Chunk::kElement>(tile, rows, chunk, row_bytes, row);
}
}  // namespace lmx::layerskip
