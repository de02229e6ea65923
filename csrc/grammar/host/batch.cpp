// grammar/host/batch.cpp
#include "batch.h"

#include <algorithm>
#include <cstring>

namespace lmx::grammar {
void spread(int64_t count, int num_threads, const std::function<void(int64_t)>& f) {
  const int64_t most = std::min<int64_t>(num_threads, count);
  if (most <= 1) {
    for (int64_t i = 0; i < count; ++i) f(i);
    return;
  }
  Pool& pool = Pool::shared(static_cast<int>(most) - 1);
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) f(i);
  };
  std::vector<std::shared_ptr<Task>> tasks;
  for (int64_t t = 1; t < most; ++t) tasks.push_back(pool.submit(work));
  std::exception_ptr error;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
    next = count;
  }
  for (const auto& task : tasks) try {
      task->wait();
    } catch (...) {
      error = std::current_exception();
    }
  if (error) std::rethrow_exception(error);
}

FillStatus fill_or_status(Matcher& matcher, uint32_t* row) {
  try {
    return matcher.fill(row);
  } catch (const GrammarLimitError&) {
    std::memset(row, 0, 4 * static_cast<size_t>(matcher.grammar().vocabulary().num_words()));
    return kLimit;
  }
}

void fill_batch(const FillBatch& batch, int num_threads) {
  spread(static_cast<int64_t>(batch.matchers.size()), num_threads, [&](int64_t i) {
    batch.status[i] =
        fill_or_status(*batch.matchers[i], batch.bitmask + batch.rows[i] * batch.num_words);
  });
}
}  // namespace lmx::grammar
