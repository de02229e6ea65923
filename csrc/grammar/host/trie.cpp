// grammar/host/trie.cpp
#include "trie.h"

#include <algorithm>

#include "charset.h"

namespace lmx::grammar {
TokenTrie TokenTrie::build(std::vector<int32_t> tokens, const std::vector<std::string_view>& text) {
  TokenTrie t;
  t.tokens = std::move(tokens);
  std::vector<int32_t> path{0};  // nodes of the string before
  t.byte.push_back(0);
  t.depth.push_back(0);
  t.size.push_back(0);
  t.first.push_back(0);
  std::string_view before;
  const auto close_below = [&](size_t depth) {
    for (; path.size() > depth + 1; path.pop_back())
      t.size[path.back()] = t.num_nodes() - path.back();
  };
  for (size_t i = 0; i < t.tokens.size(); ++i) {
    const std::string_view s = text[i];
    size_t shared = 0;
    const size_t most = std::min(s.size(), before.size());
    while (shared < most && s[shared] == before[shared]) ++shared;
    close_below(shared);
    for (size_t d = shared; d < s.size(); ++d) {
      path.push_back(t.num_nodes());
      t.byte.push_back(static_cast<uint8_t>(s[d]));
      t.depth.push_back(static_cast<int32_t>(d) + 1);
      t.size.push_back(0);
      t.first.push_back(static_cast<int32_t>(i));
    }
    t.max_depth = std::max(t.max_depth, static_cast<int32_t>(s.size()));
    before = s;
  }
  close_below(0);
  t.size[0] = t.num_nodes();
  t.first.push_back(static_cast<int32_t>(t.tokens.size()));
  t.find_content();
  return t;
}

void TokenTrie::find_content() {
  const int32_t n = num_nodes();
  content.assign(n, {});
  std::vector<int32_t> parent(n, 0), path(max_depth + 1, 0);
  for (int32_t i = 1; i < n; ++i) {
    path[depth[i]] = i;
    parent[i] = path[depth[i] - 1];
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
    const uint8_t b = byte[i];
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
  return byte.size() * (1 + 3 * sizeof(int32_t)) + tokens.size() * sizeof(int32_t) +
         content.size() * sizeof(Content) + sizeof(TokenTrie);
}
}  // namespace lmx::grammar
