// csrc/attention/rope.h: rotary embedding of query and key heads at given positions.
//
// With r = rotary_dim / 2 and pair i in [0, r) of a head: elements (i, i + r), or (2i, 2i + 1)
// where interleaved, become (x c - y s, y c + x s) with c = cos[position, i], s = sin[position, i].
// Elements from rotary_dim on stay. Computed in float32, each product and sum rounded.
// A position outside the tables makes the row's results 0.
// Source: Su et al. 2021 (arXiv 2104.09864), equation 34.
#pragma once
#include "../common/hostdev.h"
#include "../common/isa.h"
#include "../common/status.h"
struct CUstream_st;

namespace lmx::attention {
// Element (t, h, d) lies at from + t * row_stride + h * head_stride + d.
struct RopeHeads {
  const void* from;  // [num_rows, num_heads, head_dim]
  int64_t row_stride, head_stride;
  void* to;  // the same, contiguous
  int num_heads;
};
struct RopeParams {
  RopeHeads query, key;
  const float *cos, *sin;    // [num_positions, rotary_dim / 2]
  const int32_t* positions;  // [num_rows]
  int64_t num_rows, num_positions;
  int head_dim, rotary_dim;
  bool interleaved;
  DType dtype;
  int32_t* status;  // [num_rows] or null
};

struct Pair {
  float x, y;
};
LMX_HD Pair rotate(Pair v, float c, float s) { return {v.x * c - v.y * s, v.y * c + v.x * s}; }
LMX_HD bool bad_position(const RopeParams& p, int64_t row) {
  return p.positions[row] < 0 || p.positions[row] >= p.num_positions;
}

LMX_CPU_KERNEL(rope_cpu, RopeParams)
void rope_cuda(const RopeParams& p, CUstream_st* stream);
}  // namespace lmx::attention
