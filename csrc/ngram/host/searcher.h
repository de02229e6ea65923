// csrc/ngram/host/searcher.h: single queries without the dispatcher, for Python lists.
#pragma once
#include <memory>
#include <vector>

#include "../suffix.h"

namespace lmx::ngram {
struct Found {
  int64_t length;  // of the string
  int64_t count;
  std::vector<Range> ranges;  // per shard
  bool corrupt;
};

// Over memory that the caller keeps. The order and the token type are chosen once.
class Searcher {
 public:
  virtual ~Searcher() = default;
  // Of the whole query: length = size. A token that occurs nowhere is allowed.
  virtual Found find(const int64_t* query, int64_t size) const = 0;
  virtual int64_t count(const int64_t* query, int64_t size, bool& corrupt) const = 0;
  // Of the longest suffix that occurs at least min_count times.
  virtual Found longest_suffix(const int64_t* context, int64_t size, int64_t max_len,
                               int64_t min_count, int64_t prev_len) const = 0;
  // How often `token` follows what was found.
  virtual int64_t next(const Found& found, int64_t token, bool& corrupt) const = 0;
};
// Throws std::invalid_argument where the table of shards leads outside the tensors.
std::unique_ptr<Searcher> make_searcher(const Index& index);
}  // namespace lmx::ngram
