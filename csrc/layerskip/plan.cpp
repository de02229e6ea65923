// csrc/layerskip/plan.cpp: CPU side of plan.h. A counting sort; two passes over the rows.
#include "plan.h"

#include "rows_cpu.h"

namespace lmx::layerskip::LMX_ISA {
namespace {
std::string complaint(const PlanParams& p, int64_t row) {
  if (bad_group(p.groups, row)) return say_group(p.groups, row);
  const int32_t g = p.groups.group[row];
  return "expected alias[" + std::to_string(g) + "] in [0, " + std::to_string(p.groups.num_groups) +
         "), got " + std::to_string(p.alias[g]);
}

void write_tiles(const PlanParams& p) {
  int32_t* tile = p.tiles;
  for (int64_t g = 0; g < p.groups.num_groups; ++g) {
    const int32_t end = p.offsets[g + 1];
    for (int64_t first = p.offsets[g]; first < end; first += p.block_m, tile += 3) {
      tile[0] = static_cast<int32_t>(g);
      tile[1] = static_cast<int32_t>(first);
      tile[2] = static_cast<int32_t>(std::min<int64_t>(p.block_m, end - first));
    }
  }
  p.info[2] = static_cast<int32_t>((tile - p.tiles) / 3);
  for (; tile < p.tiles + 3 * p.num_tiles; tile += 3) tile[0] = -1, tile[1] = tile[2] = 0;
}
}  // namespace

void plan_cpu(const PlanParams& p) {
  const int64_t num_groups = p.groups.num_groups, num_rows = p.groups.num_rows;
  int32_t num_bad = 0;
  check_rows(
      p.op, num_rows, p.status,
      [&](int64_t row) {
        const bool bad = bad_plan_row(p, row);
        num_bad += bad;
        return bad;
      },
      [&](int64_t row) { return complaint(p, row); });
  std::fill_n(p.offsets, num_groups + 1, 0);
  for (int64_t row = 0; row < num_rows; ++row) {
    const int32_t g = planned_group(p, row);
    if (g >= 0) ++p.offsets[g + 1];
  }
  p.info[1] = static_cast<int32_t>(
      std::count_if(p.offsets + 1, p.offsets + num_groups + 1, [](int32_t n) { return n > 0; }));
  for (int64_t g = 0; g < num_groups; ++g) p.offsets[g + 1] += p.offsets[g];
  // Each group's offset serves as its cursor, and is moved back afterwards.
  int32_t skipped = p.offsets[num_groups];
  p.info[0] = skipped;
  for (int64_t row = 0; row < num_rows; ++row) {
    const int32_t g = planned_group(p, row);
    p.perm[g >= 0 ? p.offsets[g]++ : skipped++] = static_cast<int32_t>(row);
  }
  for (int64_t g = num_groups; g > 0; --g) p.offsets[g] = p.offsets[g - 1];
  p.offsets[0] = 0;
  p.info[3] = num_bad;
  write_tiles(p);
}
}  // namespace lmx::layerskip::LMX_ISA
