// csrc/layerskip/rows.h: which weights a row uses. Every op of the room takes rows [num_rows, ...]
// and a weight group for each of them, -1 = skip. Without groups all rows are in group 0.
#pragma once
#include <cmath>

#include "../common/hostdev.h"
#include "../common/status.h"

struct CUstream_st;  // cudaStream_t without a CUDA header
namespace lmx::layerskip {
struct Groups {
  const int32_t* group;  // [num_rows], in [-1, num_groups), or null: all rows are in group 0
  int64_t num_rows, num_groups;
};
LMX_HD bool bad_group(const Groups& g, int64_t row) {
  return g.group && (g.group[row] < -1 || g.group[row] >= g.num_groups);
}
// -1 also where the value is out of range.
LMX_HD int32_t group_of(const Groups& g, int64_t row) {
  if (!g.group) return 0;
  return bad_group(g, row) ? -1 : g.group[row];
}

// Rows sorted by group; see plan.h. Whatever it holds, no row outside the call is touched.
struct Plan {
  const int32_t* perm = nullptr;     // [num_rows]; null: the rows as they are, all in group 0
  const int32_t* offsets = nullptr;  // [num_groups + 1]
  const int32_t* tiles = nullptr;    // [num_tiles, 3]
  int64_t num_tiles = 0;
};

// A matrix [num_rows, width] whose rows are contiguous; strides in elements.
struct Matrix {
  void* data = nullptr;
  int64_t stride = 0;
  DType dtype = DType::f32;
};
}  // namespace lmx::layerskip
