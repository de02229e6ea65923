// kvcache/host/prefix_index.cpp
#include "prefix_index.h"

#include <algorithm>

namespace lmx::kvcache {
namespace {
// Decides where to look, never what is found.
uint64_t hash_of(uint64_t parent, std::span<const int64_t> tokens) {
  uint64_t h = parent * 0x9E3779B97F4A7C15u;
  for (const int64_t token : tokens) {
    h = (h ^ static_cast<uint64_t>(token)) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
  }
  return h;
}
}  // namespace

PrefixIndex::Id PrefixIndex::find_child(Id parent, uint64_t hash,
                                        std::span<const int64_t> tokens) const {
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const Node& node = nodes_.at(it->second);
    if (node.parent == parent && std::equal(tokens.begin(), tokens.end(), node.tokens.begin()))
      return it->second;
  }
  return 0;
}

int64_t& PrefixIndex::children_of(Id id) {
  const auto node = nodes_.find(id);
  return node != nodes_.end() ? node->second.num_children : roots_.at(keys_.at(id)).num_children;
}

void PrefixIndex::touch(std::span<const Id> path) {
  for (size_t i = path.size(); i-- > 0;) ages_.splice(ages_.begin(), ages_, nodes_.at(path[i]).age);
}

std::list<PrefixIndex::Id>::iterator PrefixIndex::remove(std::list<Id>::iterator at) {
  const auto found = nodes_.find(*at);
  const Node& node = found->second;
  const auto [first, last] = by_hash_.equal_range(node.hash);
  by_hash_.erase(std::find_if(first, last, [&](const auto& entry) { return entry.second == *at; }));
  pool_.release(node.page);
  const Id parent = node.parent;
  if (--children_of(parent) == 0 && keys_.contains(parent)) {
    roots_.erase(keys_.at(parent));
    keys_.erase(parent);
  }
  nodes_.erase(found);
  return ages_.erase(at);
}

void PrefixIndex::insert(int64_t handle, std::span<const int64_t> tokens, const std::string& key) {
  const std::vector<int32_t> pages = pool_.pages(handle);
  if (static_cast<int64_t>(tokens.size()) > pool_.length(handle))
    throw std::invalid_argument(
        "lmx.PrefixIndex.insert: expected at most " + std::to_string(pool_.length(handle)) +
        " tokens, the length of the sequence, got " + std::to_string(tokens.size()));
  const auto size = static_cast<size_t>(pool_.page_size());
  if (tokens.size() < size) return;
  auto root = roots_.find(key);
  if (root == roots_.end()) {
    root = roots_.emplace(key, Root{++last_}).first;
    keys_.emplace(root->second.id, key);
  }
  Id parent = root->second.id;
  std::vector<Id> path;
  for (size_t i = 0; (i + 1) * size <= tokens.size(); ++i) {
    const std::span<const int64_t> here = tokens.subspan(i * size, size);
    const uint64_t hash = hash_of(parent, here);
    Id child = find_child(parent, hash, here);
    if (child == 0) {
      child = ++last_;
      ages_.push_front(child);
      nodes_.emplace(child, Node{.parent = parent,
                                 .hash = hash,
                                 .page = pages[i],
                                 .tokens = {here.begin(), here.end()},
                                 .age = ages_.begin()});
      by_hash_.emplace(hash, child);
      pool_.hold(pages[i]);
      ++children_of(parent);
    }
    path.push_back(child);
    parent = child;
  }
  touch(path);
}

int64_t PrefixIndex::match(std::span<const int64_t> tokens, const std::string& key,
                           int64_t multiple, int64_t& num_tokens) {
  const int64_t page_size = pool_.page_size();
  if (multiple < 1 || multiple % page_size != 0)
    throw std::invalid_argument(
        "lmx.PrefixIndex.match: expected multiple to be one of the page "
        "size, " +
        std::to_string(page_size) + ", got " + std::to_string(multiple));
  const auto size = static_cast<size_t>(page_size);
  std::vector<Id> path;
  const auto root = roots_.find(key);
  Id parent = root == roots_.end() ? 0 : root->second.id;
  for (size_t i = 0; parent != 0 && (i + 1) * size <= tokens.size(); ++i) {
    const std::span<const int64_t> here = tokens.subspan(i * size, size);
    parent = find_child(parent, hash_of(parent, here), here);
    if (parent != 0) path.push_back(parent);
  }
  path.resize(path.size() / static_cast<size_t>(multiple / page_size) *
              static_cast<size_t>(multiple / page_size));
  std::vector<int32_t> pages;
  for (const Id id : path) pages.push_back(nodes_.at(id).page);
  const int64_t handle = pool_.adopt(pages);
  touch(path);
  num_tokens = static_cast<int64_t>(pages.size()) * page_size;
  return handle;
}

void PrefixIndex::clear() {
  for (auto it = ages_.end(); it != ages_.begin();) it = remove(std::prev(it));
}

// Pages that only the index holds, and so do all that follow them.
int64_t PrefixIndex::reclaimable() const {
  std::unordered_map<Id, int64_t> gone;  // children that can go, by parent
  int64_t count = 0;
  for (auto it = ages_.rbegin(); it != ages_.rend(); ++it) {  // children before their parents
    const Node& node = nodes_.at(*it);
    const auto mine = gone.find(*it);
    const int64_t children_gone = mine == gone.end() ? 0 : mine->second;
    if (pool_.refcount(node.page) > 1 || children_gone < node.num_children) continue;
    ++count;
    ++gone[node.parent];
  }
  return count;
}

void PrefixIndex::reclaim(int64_t count) {
  for (auto it = ages_.end(); count > 0 && it != ages_.begin();) {
    --it;
    const Node& node = nodes_.at(*it);
    if (node.num_children > 0 || pool_.refcount(node.page) > 1) continue;
    it = remove(it);
    --count;
  }
}

void PrefixIndex::count_holds(std::vector<int32_t>& holds) const {
  for (const auto& [id, node] : nodes_) ++holds[static_cast<size_t>(node.page)];
}
}  // namespace lmx::kvcache
