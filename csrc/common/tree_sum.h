// common/tree_sum.h: the sum of a block of draw.h on the CPU. Include it only from kernel files.
#pragma once
#include "draw.h"
#include "vec.h"

namespace lmx::LMX_ISA {
// 256 floats by the fixed tree: stride 128 first, then 64, ... 1.
inline float tree_sum(const float* w) {
  alignas(64) float half[kDrawBlock / 2];
  for (int i = 0; i < kDrawBlock / 2; i += kLanes)
    store(half + i, load(w + i) + load(w + i + kDrawBlock / 2));
  for (int n = kDrawBlock / 4; n >= kLanes; n /= 2)
    for (int i = 0; i < n; i += kLanes) store(half + i, load(half + i) + load(half + i + n));
  return fold(load(half), [](float a, float b) { return a + b; });
}
}  // namespace lmx::LMX_ISA
