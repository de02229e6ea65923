// common/parallel.h: the one door to threads. Kernels see no torch header.
#pragma once
#include <cstdint>

namespace lmx {
void parallel_for_impl(int64_t begin, int64_t end, int64_t grain,
                       void (*body)(int64_t, int64_t, void*), void* context);

// Calls f(b, e) on pieces of [begin, end), at least `grain` long, on torch's threads. The first
// exception is thrown on, after all pieces have ended.
template <typename F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  parallel_for_impl(
      begin, end, grain, [](int64_t b, int64_t e, void* c) { (*static_cast<const F*>(c))(b, e); },
      const_cast<F*>(&f));
}
}  // namespace lmx
