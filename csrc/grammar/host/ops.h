// grammar/host/ops.h: what the operators on handles do. No torch: bind.cpp has checked shapes.
#pragma once
#include <cstdint>

namespace lmx::grammar {
struct FillHandles {
  const int64_t* handles;  // [num_matchers], all different
  const int32_t* rows;     // [num_matchers], all different, or null: 0, 1, ...
  uint32_t* bitmask;       // [num_rows, num_words]
  int32_t* status;         // [num_matchers], a FillStatus each
  int64_t num_matchers, num_rows, num_words, num_threads;
};
// All throw std::invalid_argument, before anything is written, for a handle whose matcher is gone,
// and for a row, width or parent out of range.
void fill_handles(const FillHandles& p);
// accepted[i]: whether tokens[i] was allowed and has been read. Matchers before a token out of
// range have read theirs by then.
void accept_handles(const int64_t* handles, const int64_t* tokens, bool* accepted, int64_t count);

struct FillTreeHandle {
  const int32_t* parents;  // [num_nodes]
  const int64_t* tokens;   // [num_nodes]
  uint32_t* bitmask;       // [num_nodes, num_words]
  int32_t* valid;          // [num_nodes]
  int64_t num_nodes, num_words;
  bool root_is_current;
};
void fill_tree_handle(int64_t handle, const FillTreeHandle& p);
}  // namespace lmx::grammar
