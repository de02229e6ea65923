// common/draw.h: drawing an id from weights, with the same result on every backend.
//
// Weights are summed in three levels: a block of 256 by a fixed binary tree in fp32 (stride 128
// first, then 64, ... 1), 32 blocks of a chunk one after the other in fp64, chunks one after the
// other in fp64. A draw with u in [0, 1) walks down the same levels, so a sum is never recomputed
// in another order.
#pragma once
#include "hostdev.h"

namespace lmx {
constexpr int kDrawBlock = 256;
constexpr int kDrawChunk = 32;  // blocks

struct Pick {
  int index;      // -1: no positive weight
  double before;  // the sum of the weights before it
};

// The smallest i with before + value(0) + ... + value(i) > target. If rounding leaves none, the
// largest i with a positive value.
template <typename Value>
LMX_HD Pick pick(int count, double before, double target, const Value& value) {
  Pick last{-1, before};
  double sum = before;
  for (int i = 0; i < count; ++i) {
    const double v = value(i);
    if (!(v > 0.0)) continue;
    last = {i, sum};
    sum += v;
    if (sum > target) break;
  }
  return last;
}
}  // namespace lmx
