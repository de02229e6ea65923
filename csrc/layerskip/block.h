// csrc/layerskip/block.h: a block of weight rows, and what it is multiplied with. Include it only
// from kernel files.
#pragma once
#include "rows_cpu.h"
#include "steps.h"

namespace lmx::layerskip::LMX_ISA {
constexpr int kBlockN = 32;      // weight rows of a block
constexpr int64_t kBlockM = 48;  // rows of x that are multiplied before the next step
#if defined(__AMX_BF16__)
constexpr int kMaxBlockN = 128;  // what amx.h takes of them
constexpr int64_t kMaxBlockM = 128;
#else
constexpr int kMaxBlockN = kBlockN;
constexpr int64_t kMaxBlockM = kBlockM;
#endif

// A block's results, [rows][kMaxBlockN].
using Products = float[kMaxBlockM][kMaxBlockN];

struct BlockOf {
  const Weights* weights;
  int64_t group, first;   // rows [first, first + count) of the group's matrix
  int count;              // at most kMaxBlockN
  const float* const* x;  // rows in order_of(weights)
  int64_t num_rows;       // at most kMaxBlockM

  const char* row(int64_t i) const {
    const WeightGroup& g = weights->group[group];
    return static_cast<const char*>(g.data) + (first + i) * g.row_bytes;
  }
};
}  // namespace lmx::layerskip::LMX_ISA
