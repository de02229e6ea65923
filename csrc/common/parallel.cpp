// common/parallel.cpp
#include "parallel.h"

#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <exception>

namespace lmx {
void parallel_for_impl(int64_t begin, int64_t end, int64_t grain,
                       void (*body)(int64_t, int64_t, void*), void* context) {
  if (end - begin <= grain) {  // torch's entry costs a microsecond even for one piece
    if (begin < end) body(begin, end, context);
    return;
  }
  std::exception_ptr first;  // torch's C interface would replace the exception by an error code
  std::atomic_flag failed;
  torch::stable::parallel_for(begin, end, grain, [&](int64_t b, int64_t e) {
    try {
      body(b, e, context);
    } catch (...) {
      if (!failed.test_and_set()) first = std::current_exception();
    }
  });
  if (first) std::rethrow_exception(first);
}
}  // namespace lmx
