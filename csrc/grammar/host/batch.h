// grammar/host/batch.h: the same call for many matchers, on the native pool.
#pragma once
#include <memory>
#include <vector>

#include "common/pool.h"
#include "matcher.h"

namespace lmx::grammar {
// What each matcher does to its row; statuses are FillStatus, a limit among them.
struct FillBatch {
  std::vector<Matcher*> matchers;
  std::vector<int64_t> rows;  // of the bitmask, one per matcher, all different
  uint32_t* bitmask;
  int64_t num_words;
  int32_t* status;  // [matchers]
};
FillStatus fill_or_status(Matcher& matcher, uint32_t* row);
void fill_batch(const FillBatch& batch, int num_threads);
// Calls f(i) for i in [0, count) on the calling thread and num_threads - 1 of the pool's.
void spread(int64_t count, int num_threads, const std::function<void(int64_t)>& f);
}  // namespace lmx::grammar
