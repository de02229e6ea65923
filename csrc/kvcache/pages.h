// csrc/kvcache/pages.h: whole pages from one place to another.
//   to[to_ids[i]] = from[from_ids[i]]   for i < count; without ids, i itself
// Pages are bytes: any dtype and shape. An id outside [1, number of pages) is bad, 0 being the null
// page: its pair is left out. A page written twice, or read and written, is not defined.
#pragma once
#include "../common/isa.h"
#include "layout.h"

namespace lmx::kvcache {
struct PagesParams {
  const char* from;
  char* to;
  const int32_t* from_ids;  // [count], or null
  const int32_t* to_ids;    // [count], or null
  int64_t count;
  int64_t from_stride, to_stride, page_bytes;
  int64_t num_pages;  // ids are in [1, num_pages)
  const char* op;     // for messages
  bool from_host, to_host;
  int32_t* status;  // [count], or null
};
LMX_HD bool bad_id(const PagesParams& p, const int32_t* ids, int64_t i) {
  return ids && (ids[i] < 1 || ids[i] >= p.num_pages);
}
LMX_HD bool bad_pair(const PagesParams& p, int64_t i) {
  return bad_id(p, p.from_ids, i) || bad_id(p, p.to_ids, i);
}
LMX_HD int64_t from_at(const PagesParams& p, int64_t i) {
  return (p.from_ids ? p.from_ids[i] : i) * p.from_stride;
}
LMX_HD int64_t to_at(const PagesParams& p, int64_t i) {
  return (p.to_ids ? p.to_ids[i] : i) * p.to_stride;
}
LMX_CPU_KERNEL(pages_cpu, PagesParams)
void pages_cuda(const PagesParams& p, CUstream_st* stream);
}  // namespace lmx::kvcache
