// grammar/host/trie.cpp
#include "trie.h"

#include <algorithm>

#include "charset.h"

namespace lmx::grammar {
TokenTrie TokenTrie::build(std::vector<int32_t> tokens, const std::vector<std::string_view>& text) {
  TokenTrie t;
  t.tokens = std::move(tokens);
  std::vector<int32_t> path{0};  // nodes of the string before
  t.nodes.push_back({});
  std::string_view before;
  const auto count = [&] { return static_cast<int32_t>(t.nodes.size()); };
  const auto close_below = [&](size_t depth) {
    for (; path.size() > depth + 1; path.pop_back())
      t.nodes[path.back()].size = count() - path.back();
  };
  for (size_t i = 0; i < t.tokens.size(); ++i) {
    const std::string_view s = text[i];
    size_t shared = 0;
    const size_t most = std::min(s.size(), before.size());
    while (shared < most && s[shared] == before[shared]) ++shared;
    close_below(shared);
    for (size_t d = shared; d < s.size(); ++d) {
      path.push_back(count());
      t.nodes.push_back(
          {0, static_cast<int32_t>(i), static_cast<uint16_t>(d + 1), static_cast<uint8_t>(s[d])});
    }
    t.max_depth = std::max(t.max_depth, static_cast<int32_t>(s.size()));
    before = s;
  }
  close_below(0);
  t.nodes[0].size = count();
  t.nodes.push_back({0, static_cast<int32_t>(t.tokens.size()), 0, 0});
  for (int32_t i = 1; i < t.num_nodes(); i += t.nodes[i].size) t.child_of_root[t.nodes[i].byte] = i;
  t.find_content();
  return t;
}

void TokenTrie::find_content() {
  const int32_t n = num_nodes();
  content.assign(n, {});
  std::vector<int32_t> parent(n, 0), path(max_depth + 1, 0);
  for (int32_t i = 1; i < n; ++i) {
    path[nodes[i].depth] = i;
    parent[i] = path[nodes[i].depth - 1];
  }
  // A node's own entry first holds what is below it; its byte comes in when it is its turn.
  uint8_t after[256];  // by byte: bit q says that state q goes on; the next state in `to`
  int8_t to[256][kUtf8States];
  for (int b = 0; b < 256; ++b) {
    after[b] = 0;
    for (int q = 0; q < kUtf8States; ++q) {
      to[b][q] = static_cast<int8_t>(utf8_step(q, static_cast<uint8_t>(b)));
      after[b] |= (to[b][q] >= 0) << q;
    }
  }
  for (int32_t i = n - 1; i > 0; --i) {
    Content& c = content[i];
    const uint8_t b = nodes[i].byte;
    uint8_t ok = 0;
    for (int q = 0; q < kUtf8States; ++q)
      if (after[b] >> q & 1) ok |= (c.well_formed >> to[b][q] & 1) << q;
    c.well_formed = ok;
    if (b < 64)
      c.ascii_lo |= uint64_t{1} << b;
    else if (b < 128)
      c.ascii_hi |= uint64_t{1} << (b - 64);
    else
      c.has_wide = true;
    Content& up = content[parent[i]];
    up.ascii_lo |= c.ascii_lo;
    up.ascii_hi |= c.ascii_hi;
    up.has_wide |= c.has_wide;
    up.well_formed &= c.well_formed;
  }
}

size_t TokenTrie::memory_bytes() const {
  return nodes.size() * sizeof(Node) + tokens.size() * sizeof(int32_t) +
         content.size() * sizeof(Content) + sizeof(TokenTrie);
}
}  // namespace lmx::grammar
