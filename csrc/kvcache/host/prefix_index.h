// kvcache/host/prefix_index.h: full pages by the tokens in them and before them.
//
// A tree: the children of a node are pages that followed its page, by their tokens. Roots are extra
// keys: whatever decides keys and values besides tokens. Tokens and keys are compared, not only
// hashes of them, so no page is ever found for other tokens or another key. A node holds its page;
// a page that only the index holds is given back when the pool runs short, the one used longest ago
// first. A node that is found makes its parents newer still, so leaves always go first.
#pragma once
#include <list>
#include <string>
#include <unordered_map>

#include "page_pool.h"

namespace lmx::kvcache {
class PrefixIndex final : public Reserve {
 public:
  explicit PrefixIndex(PagePool& pool) : pool_(pool) { pool.set_reserve(this); }
  ~PrefixIndex() override { pool_.set_reserve(nullptr); }
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // Enters the full pages of a sequence, whose first slots hold `tokens`.
  void insert(int64_t handle, std::span<const int64_t> tokens, const std::string& key);
  // A new sequence of the pages of the longest known prefix whose length is a multiple of
  // `multiple`, itself one of the page size. `num_tokens` gets that length.
  int64_t match(std::span<const int64_t> tokens, const std::string& key, int64_t multiple,
                int64_t& num_tokens);
  void clear();
  int64_t size() const { return static_cast<int64_t>(nodes_.size()); }

  int64_t reclaimable() const override;
  void reclaim(int64_t count) override;
  void count_holds(std::vector<int32_t>& holds) const override;

 private:
  using Id = uint64_t;  // of a node or a root; never used again
  struct Node {
    Id parent;
    uint64_t hash;
    int32_t page;
    int64_t num_children = 0;
    std::vector<int64_t> tokens;
    std::list<Id>::iterator age;
  };
  struct Root {
    Id id;
    int64_t num_children = 0;
  };

  Id find_child(Id parent, uint64_t hash, std::span<const int64_t> tokens) const;  // 0: none
  int64_t& children_of(Id id);
  void touch(std::span<const Id> path);
  std::list<Id>::iterator remove(std::list<Id>::iterator at);  // a leaf

  PagePool& pool_;
  std::unordered_map<Id, Node> nodes_;
  std::unordered_multimap<uint64_t, Id> by_hash_;
  std::unordered_map<std::string, Root> roots_;
  std::unordered_map<Id, std::string> keys_;  // of the roots
  std::list<Id> ages_;                        // the newest first
  Id last_ = 0;
};
}  // namespace lmx::kvcache
