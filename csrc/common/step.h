// common/step.h: 16 floats in SIMD registers, at every level. Include it only from kernel files.
#pragma once
#include "vec.h"

namespace lmx::LMX_ISA {
constexpr int kStep = 16;
constexpr int kRegs = kStep / kLanes;  // two at level v3, one at v4
struct Step {
  Vec reg[kRegs];
};

inline Step zero_step() {
  Step s;
  for (Vec& v : s.reg) v = Vec(0.f);
  return s;
}
inline void store_step(float* p, const Step& s) {
  for (int i = 0; i < kRegs; ++i) store(p + i * kLanes, s.reg[i]);
}
}  // namespace lmx::LMX_ISA
