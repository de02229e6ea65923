// common/amx.h: what kernels with AMX tiles share. Include it only from kernel files; below level
// amx nothing uses tiles.
//
// A tile is 16 rows of 64 bytes. TDPBF16PS multiplies 16 rows of 32 bfloat16 with 32 x 16, pairs of
// k side by side, and adds to 16 x 16 floats: it sums the even and the odd of the 32 apart, by fma
// from 0, adds the two and adds that to the output; subnormals, of bfloat16 as of float32, are
// zeros. Source: Intel, Instruction Set Extensions Programming Reference 319433, TDPBF16PS.
#pragma once
#include <algorithm>

#include "vec.h"

namespace lmx::LMX_ISA {
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kWholeTiles;

// This thread has tiles while it lives; afterwards the system has no tile registers to save.
class TileScope {
 public:
  explicit TileScope([[maybe_unused]] bool on) : on_(on) {
#if defined(__AMX_BF16__)
    if (on_) _tile_loadconfig(&kWholeTiles);
#endif
  }
  ~TileScope() {
#if defined(__AMX_BF16__)
    if (on_) _tile_release();
#endif
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  [[maybe_unused]] const bool on_;
};

constexpr int kAmxRows = 16, kAmxK = 32, kAmxFloats = 256, kAmxBytes = 64;

// Four rows of four words each become four columns.
inline void transpose(const void* const (&from)[4], float* to, int64_t stride) {
  __m128 row[4];
  for (int i = 0; i < 4; ++i) row[i] = _mm_loadu_ps(static_cast<const float*>(from[i]));
  _MM_TRANSPOSE4_PS(row[0], row[1], row[2], row[3]);
  for (int i = 0; i < 4; ++i) _mm_storeu_ps(to + i * stride, row[i]);
}

// Up to 16 rows of k elements, as [steps of 32 k][16 pairs][16 rows][2], zeros where nothing is. A
// word of a row is one pair; row i begins at word i.
constexpr int64_t packed_floats(int64_t k) { return ceil_div<int64_t>(k, kAmxK) * kAmxFloats; }

constexpr Bf16 kNoRow[kAmxK] = {};
inline void pack_rows(const Bf16* const* rows, int num_rows, int64_t k, float* to) {
  Bf16 tail[4][kAmxK];
  for (int64_t i = 0; i < k; i += kAmxK, to += kAmxFloats) {
    const int64_t left = std::min<int64_t>(kAmxK, k - i);
    for (int r = 0; r < kAmxRows; r += 4) {
      const Bf16* from[4];
      for (int j = 0; j < 4; ++j) {
        from[j] = r + j < num_rows ? rows[r + j] + i : kNoRow;
        if (r + j < num_rows && left < kAmxK) {
          std::fill(std::copy_n(from[j], left, tail[j]), tail[j] + kAmxK, Bf16{});
          from[j] = tail[j];
        }
      }
      for (int p = 0; p < kAmxK; p += 8)
        transpose({from[0] + p, from[1] + p, from[2] + p, from[3] + p}, to + p / 2 * kAmxRows + r,
                  kAmxRows);
    }
  }
}
}  // namespace lmx::LMX_ISA
