// csrc/attention/rope.cpp: CPU side of rope.h. Bound by the bytes of query and key.
#include "rope.h"

#include <stdexcept>
#include <string>

#include "../common/parallel.h"
#include "lanes.h"

namespace lmx::attention::LMX_ISA {
namespace {
template <typename T>
void rotate_head(const RopeParams& p, const T* from, const float* c, const float* s, T* to) {
  const int half = p.rotary_dim / 2;
  const int step = p.interleaved ? 2 : 1, apart = p.interleaved ? 1 : half;
  for (int i = 0; i < half; ++i) {
    const T *x = from + i * step, *y = x + apart;
    const Pair v = rotate({to_float(*x), to_float(*y)}, c[i], s[i]);
    to[i * step] = from_float<T>(v.x);
    to[i * step + apart] = from_float<T>(v.y);
  }
  std::copy(from + p.rotary_dim, from + p.head_dim, to + p.rotary_dim);
}

template <typename T>
void rotate_row(const RopeParams& p, const RopeHeads& heads, int64_t row) {
  T* to = static_cast<T*>(heads.to) + row * heads.num_heads * p.head_dim;
  if (bad_position(p, row)) {
    std::fill_n(to, heads.num_heads * p.head_dim, T{});
    return;
  }
  const int64_t at = p.positions[row] * int64_t{p.rotary_dim / 2};
  const T* from = static_cast<const T*>(heads.from) + row * heads.row_stride;
  for (int h = 0; h < heads.num_heads; ++h)
    rotate_head(p, from + h * heads.head_stride, p.cos + at, p.sin + at, to + h * p.head_dim);
}

void check_positions(const RopeParams& p) {
  for (int64_t row = 0; row < p.num_rows; ++row) {
    if (!bad_position(p, row)) continue;
    if (!p.status)
      throw std::invalid_argument("lmx::attention_rope: expected positions[" + std::to_string(row) +
                                  "] in [0, " + std::to_string(p.num_positions) + "), got " +
                                  std::to_string(p.positions[row]));
    p.status[row] |= kStatusBadValue;
  }
}
}  // namespace

void rope_cpu(const RopeParams& p) {
  constexpr int64_t kGrainElements = 1 << 14;
  check_positions(p);
  const int64_t elements = int64_t{p.query.num_heads + p.key.num_heads} * p.head_dim;
  visit_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_for(0, p.num_rows, kGrainElements / (elements + 1) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     rotate_row<T>(p, p.query, row);
                     rotate_row<T>(p, p.key, row);
                   }
                 });
  });
}
}  // namespace lmx::attention::LMX_ISA
