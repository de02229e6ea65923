// grammar/host/ops.cpp
#include "ops.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "batch.h"
#include "registry.h"

namespace lmx::grammar {
namespace {
Matcher& matcher_of(const char* op, int64_t handle) {
  if (Matcher* matcher = Registry::instance().find(handle)) return *matcher;
  throw std::invalid_argument(std::string("lmx::") + op + ": stale handle " +
                              std::to_string(handle) + ": its matcher is gone");
}

void check_words(const char* op, const Matcher& matcher, int64_t num_words) {
  const int32_t expected = matcher.grammar().vocabulary().num_words();
  if (num_words != expected)
    throw std::invalid_argument(std::string("lmx::") + op + ": expected bitmask of " +
                                std::to_string(expected) + " words a row, got " +
                                std::to_string(num_words));
}

void check_different(const char* op, const char* what, std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  if (std::adjacent_find(values.begin(), values.end()) != values.end())
    throw std::invalid_argument(std::string("lmx::") + op + ": expected " + what + " that differ");
}
}  // namespace

void fill_handles(const FillHandles& p) {
  constexpr auto kOp = "grammar_fill";
  FillBatch batch{{}, {}, p.bitmask, p.num_words, p.status};
  for (int64_t i = 0; i < p.num_matchers; ++i) {
    batch.matchers.push_back(&matcher_of(kOp, p.handles[i]));
    check_words(kOp, *batch.matchers.back(), p.num_words);
    const int64_t row = p.rows ? p.rows[i] : i;
    if (row < 0 || row >= p.num_rows)
      throw std::invalid_argument("lmx::grammar_fill: expected rows in [0, " +
                                  std::to_string(p.num_rows) + "), got " + std::to_string(row));
    batch.rows.push_back(row);
  }
  check_different(kOp, "handles", {p.handles, p.handles + p.num_matchers});
  check_different(kOp, "rows", batch.rows);
  if (p.num_threads < 1 || p.num_threads > 1024)
    throw std::invalid_argument("lmx::grammar_fill: expected num_threads in [1, 1024], got " +
                                std::to_string(p.num_threads));
  fill_batch(batch, static_cast<int>(p.num_threads));
}

void accept_handles(const int64_t* handles, const int64_t* tokens, bool* accepted, int64_t count) {
  std::vector<Matcher*> matchers;
  for (int64_t i = 0; i < count; ++i) matchers.push_back(&matcher_of("grammar_accept", handles[i]));
  for (int64_t i = 0; i < count; ++i) accepted[i] = matchers[i]->accept(tokens[i]);
}

void fill_tree_handle(int64_t handle, const FillTreeHandle& p) {
  Matcher& matcher = matcher_of("grammar_fill_tree", handle);
  check_words("grammar_fill_tree", matcher, p.num_words);
  matcher.fill_tree({.parents = p.parents,
                     .tokens = p.tokens,
                     .num_nodes = p.num_nodes,
                     .rows = p.bitmask,
                     .valid = p.valid,
                     .root_is_current = p.root_is_current,
                     .max_ms = 0});
}
}  // namespace lmx::grammar
