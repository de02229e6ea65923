// csrc/ngram/host/searcher.cpp
#include "searcher.h"

#include <stdexcept>

namespace lmx::ngram {
namespace {
template <typename Order>
class SearcherOf final : public Searcher {
 public:
  explicit SearcherOf(const Index& index) : vocab_size_(index.vocab_size), eos_id_(index.eos_id) {
    shards_.resize(static_cast<size_t>(index.num_shards));
    for (int64_t s = 0; s < index.num_shards; ++s)
      if (!shard_at(index, s, shards_[static_cast<size_t>(s)]))
        throw std::invalid_argument("lmx.ngram: shard " + std::to_string(s) +
                                    " leaves the index's tensors");
  }

  int64_t count(const int64_t* query, int64_t size, bool& corrupt) const override {
    if (known_prefix(query, size, vocab_size_) < size) return 0;
    int64_t count = 0;
    Finder<Order, int64_t> finder;
    for (const auto& shard : shards_) {
      finder.start(shard, query, size);
      const Range r = finder.run();
      count += shard.sign * (r.hi - r.lo);
      corrupt |= finder.corrupt;
    }
    return count;
  }

  Found find(const int64_t* query, int64_t size) const override {
    Found found{size, 0, std::vector<Range>(shards_.size(), Range{0, 0}), false};
    if (known_prefix(query, size, vocab_size_) < size) return found;
    Finder<Order, int64_t> finder;
    for (size_t s = 0; s < shards_.size(); ++s) {
      finder.start(shards_[s], query, size);
      const Range r = found.ranges[s] = finder.run();
      found.count += shards_[s].sign * (r.hi - r.lo);
      found.corrupt |= finder.corrupt;
    }
    return found;
  }

  Found longest_suffix(const int64_t* context, int64_t size, int64_t max_len, int64_t min_count,
                       int64_t prev_len) const override {
    const int64_t most = max_len > 0 && max_len < size ? max_len : size;
    const int64_t* end = context + size;
    std::vector<Range> space(2 * shards_.size());
    SuffixSearch<Order, int64_t> search;
    search.start(shards_.data(), static_cast<int64_t>(shards_.size()), end,
                 known_suffix(end - most, most, vocab_size_), min_count, prev_len, space.data(),
                 space.data() + shards_.size());
    while (search.step()) {
    }
    const Range* best = search.ranges;
    return {search.found, search.count, std::vector<Range>(best, best + shards_.size()),
            search.corrupt};
  }

  int64_t next(const Found& found, int64_t token, bool& corrupt) const override {
    int64_t count = 0;
    for (size_t s = 0; s < shards_.size(); ++s) {
      Next<Order> next{shards_[s], found.length};
      int64_t here = token == eos_id_ ? next.count_end(found.ranges[s]) : 0;
      if (is_token(token, vocab_size_)) here += next.count(found.ranges[s], next.place_of(token));
      count += shards_[s].sign * here;
      corrupt |= next.corrupt;
    }
    return count;
  }

 private:
  std::vector<Shard<Order>> shards_;
  int64_t vocab_size_, eos_id_;
};
}  // namespace

std::unique_ptr<Searcher> make_searcher(const Index& index) {
  std::unique_ptr<Searcher> made;
  visit_order(index,
              [&](auto order) { made = std::make_unique<SearcherOf<decltype(order)>>(index); });
  return made;
}
}  // namespace lmx::ngram
