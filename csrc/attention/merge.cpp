// csrc/attention/merge.cpp: CPU side of merge.h. Bound by the bytes of three rows.
#include "merge.h"

#include "../common/parallel.h"
#include "lanes.h"

namespace lmx::attention::LMX_ISA {
namespace {
template <typename T>
void merge_row(const MergeWeights& w, const T* a, const T* b, T* out, int64_t n) {
  for (int64_t d = 0; d < n; ++d) out[d] = from_float<T>(merged(w, to_float(a[d]), to_float(b[d])));
}
}  // namespace

void merge_cpu(const MergeParams& p) {
  constexpr int64_t kGrainElements = 1 << 14;
  visit_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const auto* a = static_cast<const T*>(p.out_a);
    const auto* b = static_cast<const T*>(p.out_b);
    auto* out = static_cast<T*>(p.out);
    parallel_for(0, p.num_rows, kGrainElements / (p.head_dim + 1) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     const MergeWeights w = merge_weights(p.lse_a[row], p.lse_b[row]);
                     const int64_t at = row * p.head_dim;
                     merge_row(w, a + at, b + at, out + at, p.head_dim);
                     p.lse[row] = w.lse;
                   }
                 });
  });
}
}  // namespace lmx::attention::LMX_ISA
