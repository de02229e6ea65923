// grammar/host/trie.h: byte strings of tokens as a flat trie, in depth-first order.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lmx::grammar {
struct TokenTrie {
  struct Node {
    int32_t size;   // node i + size is the next one that is not below node i
    int32_t first;  // tokens from this one to the next node's end here
    uint16_t depth;
    uint8_t byte;  // the one that leads here
  };
  std::vector<Node> nodes;      // in depth-first order; 0 is the root, and one more ends the list
  std::vector<int32_t> tokens;  // sorted by their bytes
  std::array<int32_t, 256> child_of_root{};  // by byte; 0: none
  int32_t max_depth = 0;
  // What the strings at and below node i are made of, read from node i's parent on: ASCII bytes as
  // a set, and for each state of the reader of UTF-8 whether all the rest is well-formed from it (a
  // character may be cut off at the end).
  struct Content {
    uint64_t ascii_lo = 0, ascii_hi = 0;
    uint8_t well_formed = 0xFF;
    bool has_wide = false;  // bytes beyond ASCII
  };
  std::vector<Content> content;

  int32_t num_nodes() const { return static_cast<int32_t>(nodes.size()) - 1; }
  // `text[i]` are the bytes of tokens[i].
  static TokenTrie build(std::vector<int32_t> tokens, const std::vector<std::string_view>& text);
  size_t memory_bytes() const;

 private:
  void find_content();
};

// ASCII bytes, and whether all whole characters beyond ASCII belong too: the strings over such an
// alphabet are what a state that loops over it accepts.
struct Alphabet {
  uint64_t ascii_lo = 0, ascii_hi = 0;
  bool has_wide = false;
  auto operator<=>(const Alphabet&) const = default;
  int count() const { return __builtin_popcountll(ascii_lo) + __builtin_popcountll(ascii_hi); }
  bool covers(const TokenTrie::Content& c) const {
    return !(c.ascii_lo & ~ascii_lo) && !(c.ascii_hi & ~ascii_hi) &&
           (!c.has_wide || (has_wide && (c.well_formed & 1)));
  }
  bool has(uint8_t b) const {
    return b >= 0x80 ? has_wide : (b < 64 ? ascii_lo >> b : ascii_hi >> (b - 64)) & 1;
  }
};
}  // namespace lmx::grammar
