// csrc/layerskip/plan.h: rows sorted by weight group, once for all GEMMs of a step.
//   perm     row ids: those of group 0 in ascending order, of group 1, ..., then the skipped ones
//   offsets  group g owns perm[offsets[g] : offsets[g + 1]]; offsets[num_groups] rows are active
//   tiles    (group, first position in perm, rows), at most block_m rows each, no tile across
//            groups, in order; unused ones are (-1, 0, 0)
//   info     active rows, non-empty groups, used tiles, group values out of range
// With `alias`, group g counts as group alias[g]: layers that share weights form one group. A value
// out of range, of group or of alias, counts as -1.
// The stable counting sort is Knuth, The Art of Computer Programming 3, section 5.2, algorithm D.
#pragma once
#include "../common/isa.h"
#include "rows.h"

namespace lmx::layerskip {
struct PlanParams {
  const char* op;  // whose plan it is, for messages: without "lmx::"
  Groups groups;
  const int32_t* alias;  // [num_groups] or null
  int64_t block_m;       // at least 1
  int64_t num_tiles;     // num_tiles(...)
  int32_t* perm;         // [num_rows]
  int32_t* offsets;      // [num_groups + 1]
  int32_t* tiles;        // [num_tiles, 3]
  int32_t* info;         // [4]
  int32_t* status;       // [num_rows] or null
  int32_t* space;        // CUDA workspace of plan_space(...) numbers, or null
};

// Room for the tiles of any groups of that many rows.
LMX_HD int64_t num_tiles(int64_t num_rows, int64_t num_groups, int64_t block_m) {
  return num_rows / block_m + (num_groups < num_rows ? num_groups : num_rows);
}

// A CUDA workspace, in numbers: none where one block of threads sorts the rows; else one number a
// row and one for each value of a digit in each block of rows.
constexpr int64_t kPlanBlockRows = 4096, kPlanDigits = 1024;
LMX_HD int64_t plan_space(int64_t num_rows, int64_t num_groups) {
  if (num_rows <= kPlanBlockRows && num_groups <= kPlanDigits) return 0;
  return num_rows + ceil_div(num_rows, kPlanBlockRows) * kPlanDigits;
}

// The group that row r is planned in, or -1.
LMX_HD int32_t planned_group(const PlanParams& p, int64_t row) {
  const int32_t g = group_of(p.groups, row);
  if (g < 0 || !p.alias) return g;
  return p.alias[g] >= 0 && p.alias[g] < p.groups.num_groups ? p.alias[g] : -1;
}
// Whether a row's group, or what it is an alias of, is out of range.
LMX_HD bool bad_plan_row(const PlanParams& p, int64_t row) {
  return bad_group(p.groups, row) || (planned_group(p, row) < 0 && group_of(p.groups, row) >= 0);
}

LMX_CPU_KERNEL(plan_cpu, PlanParams)
void plan_cuda(const PlanParams& p, CUstream_st* stream);
}  // namespace lmx::layerskip
