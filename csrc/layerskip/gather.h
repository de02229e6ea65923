// csrc/layerskip/gather.h: rows picked by number and put back, for kernels of one's own.
//   gather   to[i] = from[perm[i]]
//   scatter  to[perm[i]] = from[i]; where numbers repeat, what the row holds is not defined
// for i < num_rows. Rows are bytes: any dtype. A number out of range is a row of zeros / a row that
// goes nowhere.
#pragma once
#include "../common/isa.h"
#include "rows.h"

namespace lmx::layerskip {
struct GatherParams {
  const void* from;
  void* to;
  const int32_t* perm;  // [num_rows]
  int64_t num_rows;
  int64_t from_stride, to_stride;  // bytes from row to row
  int64_t row_bytes;
  int64_t limit;    // numbers are in [0, limit)
  bool scatter;     // else gather
  int32_t* status;  // [num_rows] or null
};
LMX_HD bool bad_number(const GatherParams& p, int64_t i) {
  return p.perm[i] < 0 || p.perm[i] >= p.limit;
}
LMX_CPU_KERNEL(gather_cpu, GatherParams)
void gather_cuda(const GatherParams& p, CUstream_st* stream);
}  // namespace lmx::layerskip
