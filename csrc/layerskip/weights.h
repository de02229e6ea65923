// csrc/layerskip/weights.h: one matrix [n, k] per group, as it is stored.
//   dense  float32, float16 or bfloat16, the dtype of x
//   int8   signed bytes and one float32 scale per output row: (sum of x q) scale
//   q8_0   blocks of 32 in a row: float16 d, 32 signed bytes q; a weight is bf16(d q)
//   q4_0   float16 d, 16 bytes; the low halves are weights 0-15, the high ones 16-31: bf16(d (q -
//   8)) q4_1   float16 d, float16 m, 16 bytes likewise: bf16(d q + m), one rounding to float32
//   before
// A block format is by definition the bfloat16 matrix of these values: same bits.
// Source: the block layouts of GGUF, ggml docs/gguf.md and ggml-common.h.
#pragma once
#include "rows.h"

namespace lmx::layerskip {
enum class Format : int { dense, int8, q8_0, q4_0, q4_1 };
constexpr int kBlockWeights = 32;

LMX_HD constexpr bool is_blocks(Format f) {
  return f == Format::q8_0 || f == Format::q4_0 || f == Format::q4_1;
}
// Bytes of a block of 32 weights, or of a row's single weight in the other formats.
LMX_HD constexpr int64_t unit_bytes(Format f, DType dtype) {
  switch (f) {
    case Format::dense: return dtype == DType::f32 ? 4 : 2;
    case Format::int8: return 1;
    case Format::q8_0: return 34;
    case Format::q4_0: return 18;
    case Format::q4_1: return 20;
  }
  return 0;
}
LMX_HD constexpr int64_t row_bytes(Format f, DType dtype, int64_t k) {
  return unit_bytes(f, dtype) * (is_blocks(f) ? k / kBlockWeights : k);
}

// Where a group's matrix lies; rows are contiguous and `row_bytes` apart.
struct WeightGroup {
  const void* data;  // null: the group has no weights, and must have no rows
  int64_t row_bytes;
};

struct Weights {
  const WeightGroup* group;  // [num_groups], on the host
  const float* scale;        // int8: [num_groups, n], else null
  int64_t num_groups, n, k;
  Format format;
  DType dtype;  // of dense weights
};
}  // namespace lmx::layerskip
