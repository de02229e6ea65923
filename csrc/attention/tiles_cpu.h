// csrc/attention/tiles_cpu.h: the two products of attention in AMX tiles, for bfloat16. Include it
// only from kernel files; below level amx nothing uses tiles.
//
// Scores: 16 keys as they lie in pages, times 32 elements of 16 query rows, are 16 x 16 scores.
// Values: the weights of 16 rows for 32 keys, times those keys' values, pairs of keys side by side,
// are 16 rows of 16 elements. Every result is summed in ascending order of 32 elements or keys, the
// same for any number of rows; keys and elements that are not there are zeros.
#pragma once
#include <atomic>

#include "../common/amx.h"
#include "paged.h"

namespace lmx::attention::LMX_ISA {
using namespace lmx::LMX_ISA;

#if defined(__AMX_BF16__)
template <typename T>
constexpr bool kInTiles = std::is_same_v<T, Bf16>;
#else
template <typename T>
constexpr bool kInTiles = false;
#endif

constexpr int kTilePairs = 16;           // of keys or of elements
constexpr int kPassRows = 2 * kAmxRows;  // two tiles of each factor, four of sums

constexpr int64_t padded(int64_t n, int64_t to) { return ceil_div(n, to) * to; }
// What the packed query rows, the weights as bfloat16 and the values in pairs take.
constexpr int64_t query_floats(int64_t rows, int64_t dim) {
  return padded(rows, kPassRows) / kAmxRows * packed_floats(dim);
}
constexpr int64_t weight_floats(int64_t rows) { return padded(rows, kPassRows) * kChunk / 2; }
constexpr int64_t pair_floats(int64_t dim) { return kChunk / 2 * padded(dim, kPassRows); }

#if defined(__AMX_BF16__)
// Up to 16 rows a constant stride apart.
struct TileRows {
  const Bf16* first;
  int64_t stride;  // in bytes
};

// Rows that lie so, and need no zeros, are used in place; else they are copied to `space`.
inline TileRows tile_rows(const Bf16* const* rows, int count, int dim, Bf16* space) {
  const int64_t width = padded(dim, kAmxK);
  bool even = count == kAmxRows && width == dim;
  for (int i = 2; even && i < kAmxRows; ++i) even = rows[i] - rows[i - 1] == rows[1] - rows[0];
  if (even && rows[1] > rows[0]) return {rows[0], (rows[1] - rows[0]) * int64_t{sizeof(Bf16)}};
  for (int i = 0; i < kAmxRows; ++i) {
    Bf16* to = space + i * width;
    if (i < count) to = std::copy_n(rows[i], dim, to);
    std::fill(to, space + (i + 1) * width, Bf16{});
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);  // a tile load is no read to the compiler
  return {space, width * int64_t{sizeof(Bf16)}};
}

// Query rows, 16 together, each packed_floats(dim) behind the ones before.
inline void pack_query(const Bf16* const* rows, int count, int dim, float* to) {
  const int whole = static_cast<int>(padded(count, kPassRows));
  for (int i = 0; i < whole; i += kAmxRows, to += packed_floats(dim))
    pack_rows(rows + std::min(i, count), std::clamp(count - i, 0, kAmxRows), dim, to);
}

// Tiles 0 to 3 hold sums of 32 x 32: tile 4's rows, then tile 5's, times tile 6, then tile 7.
using TileSums = float[kPassRows][kPassRows];
inline void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
inline void add_products() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 5, 6);
  _tile_dpbf16ps(2, 4, 7);
  _tile_dpbf16ps(3, 5, 7);
}
inline void store_sums(TileSums& sums) {
  constexpr int64_t kStride = sizeof sums[0];
  _tile_stored(0, &sums[0][0], kStride);
  _tile_stored(1, &sums[kAmxRows][0], kStride);
  _tile_stored(2, &sums[0][kAmxRows], kStride);
  _tile_stored(3, &sums[kAmxRows][kAmxRows], kStride);
}

// weights[r * kChunk + j] = <query row r, keys[j]>, r < num_rows, j < num_keys; in the rest of 32
// keys and of 32 rows something is written, too.
inline void tile_keys(const float* query, int dim, int num_rows, const Bf16* const* keys,
                      int num_keys, float* weights) {
  alignas(64) Bf16 space[2][kAmxRows * kMaxHeadDim];
  alignas(64) TileSums sums;
  const int64_t steps = ceil_div(dim, kAmxK);
  for (int j = 0; j < num_keys; j += kPassRows) {
    const TileRows a = tile_rows(keys + j, std::min(kAmxRows, num_keys - j), dim, space[0]);
    const int more = std::clamp(num_keys - j - kAmxRows, 0, kAmxRows);
    const TileRows b = tile_rows(keys + j + (more ? kAmxRows : 0), more, dim, space[1]);
    for (int r = 0; r < num_rows; r += kPassRows) {
      const float* q = query + r / kAmxRows * packed_floats(dim);
      const float* q2 = q + packed_floats(dim);
      clear_sums();
      for (int64_t s = 0; s < steps; ++s) {
        _tile_loadd(4, a.first + s * kAmxK, a.stride);
        _tile_loadd(5, b.first + s * kAmxK, b.stride);
        _tile_loadd(6, q + s * kAmxFloats, kAmxBytes);
        _tile_loadd(7, q2 + s * kAmxFloats, kAmxBytes);
        add_products();
      }
      store_sums(sums);
      for (int k = 0; k < kPassRows; k += 4)
        for (int i = 0; i < std::min(kPassRows, num_rows - r); i += 4)
          transpose({&sums[k][i], &sums[k + 1][i], &sums[k + 2][i], &sums[k + 3][i]},
                    weights + (r + i) * kChunk + j + k, kChunk);
    }
  }
}

// 16 values of two keys, side by side.
inline void interleave(const Bf16* a, const Bf16* b, Bf16* to) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a));
  const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
  const __m256i low = _mm256_unpacklo_epi16(x, y), high = _mm256_unpackhi_epi16(x, y);
  auto* out = reinterpret_cast<__m256i*>(to);
  _mm256_storeu_si256(out, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(low, high, 0x31));
}

// Values as [32 keys][16 elements][16 pairs of keys][16 elements][2], up to a multiple of 32 keys
// and of 32 elements.
constexpr Bf16 kNoKey[kMaxHeadDim] = {};
inline void pair_values(const Bf16* const* values, int num_keys, int dim, Bf16* to) {
  const int width = static_cast<int>(padded(dim, kPassRows));
  for (int j = 0; j < padded(num_keys, kAmxK); j += 2) {
    const Bf16* a = j < num_keys ? values[j] : kNoKey;
    const Bf16* b = j + 1 < num_keys ? values[j + 1] : kNoKey;
    Bf16* out = to + j / kAmxK * kAmxK * width + j % kAmxK * kAmxRows;
    for (int d = 0; d < width; d += kAmxRows, out += 2 * kAmxFloats) {
      Bf16 rest[2][kAmxRows] = {};
      if (dim - d >= kAmxRows) {
        interleave(a + d, b + d, out);
        continue;
      }
      const int left = std::max(dim - d, 0);
      std::copy_n(a + std::min(d, dim), left, rest[0]);
      std::copy_n(b + std::min(d, dim), left, rest[1]);
      interleave(rest[0], rest[1], out);
    }
  }
}

// Weights that are bfloat16 in value become so, up to a multiple of 32 keys and of 32 rows.
inline void narrow_weights(const float* weights, int num_rows, int num_keys, Bf16* to) {
  const int whole = static_cast<int>(padded(num_keys, kAmxK));
  for (int r = 0; r < padded(num_rows, kPassRows); ++r)
    for (int j = 0; j < whole; ++j) {
      const float w = r < num_rows && j < num_keys ? weights[r * kChunk + j] : 0.f;
      to[r * kChunk + j] = {static_cast<uint16_t>(std::bit_cast<uint32_t>(w) >> 16)};
    }
}

// value[r * width + d] = the sum of weight r, j times element d of value j; `width` is dim, padded
// to a multiple of 16.
inline void tile_values(const Bf16* weights, int num_rows, const Bf16* pairs, int num_keys, int dim,
                        float* value, int64_t width) {
  alignas(64) TileSums sums;
  const int64_t step = kAmxK * padded(dim, kPassRows);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  for (int r = 0; r < num_rows; r += kPassRows)
    for (int d = 0; d < dim; d += kPassRows) {
      const Bf16* w = weights + r * kChunk;
      const Bf16* v = pairs + d / kAmxRows * 2 * kAmxFloats;
      constexpr int64_t kWeightStride = kChunk * sizeof(Bf16);
      clear_sums();
      for (int j = 0; j < num_keys; j += kAmxK, w += kAmxK, v += step) {
        _tile_loadd(4, w, kWeightStride);
        _tile_loadd(5, w + kAmxRows * kChunk, kWeightStride);
        _tile_loadd(6, v, kAmxBytes);
        _tile_loadd(7, v + 2 * kAmxFloats, kAmxBytes);
        add_products();
      }
      store_sums(sums);
      for (int i = 0; i < std::min(kPassRows, num_rows - r); ++i)
        std::copy_n(sums[i], std::min<int64_t>(kPassRows, width - d), value + (r + i) * width + d);
    }
}
#endif
}  // namespace lmx::attention::LMX_ISA
