// csrc/layerskip/rows_cpu.h: how CPU kernels look at groups. Include it only from kernel files.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "../common/convert.h"
#include "../common/parallel.h"
#include "rows.h"

namespace lmx::layerskip::LMX_ISA {
// bad(row) says whether a row is. With a status tensor its bit is set there; without one it is an
// exception, which say(row) words.
template <typename Bad, typename Say>
void check_rows(const char* op, int64_t num_rows, int32_t* status, const Bad& bad, const Say& say) {
  for (int64_t row = 0; row < num_rows; ++row) {
    if (!bad(row)) continue;
    if (!status) throw std::invalid_argument(std::string("lmx::") + op + ": " + say(row));
    status[row] |= kStatusBadGroup;
  }
}

inline std::string say_group(const Groups& g, int64_t row) {
  return "expected group[" + std::to_string(row) + "] in [-1, " + std::to_string(g.num_groups) +
         "), got " + std::to_string(g.group[row]);
}
inline void check_groups(const char* op, const Groups& g, int32_t* status) {
  if (!g.group) return;
  check_rows(
      op, g.num_rows, status, [&](int64_t row) { return bad_group(g, row); },
      [&](int64_t row) { return say_group(g, row); });
}
}  // namespace lmx::layerskip::LMX_ISA
