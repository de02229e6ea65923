// grammar/host/vocabulary.h: what tokens are made of: their bytes, and tables over them.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "trie.h"

namespace lmx::grammar {
using Bits = std::vector<uint32_t>;  // [ceil(V / 32)]

inline void set_bit(uint32_t* words, int32_t token) { words[token >> 5] |= 1u << (token & 31); }

enum class Spelling { raw, byte_fallback, byte_level };

class Vocabulary {
 public:
  // `entries[i]` is token i as the tokenizer writes it. `size`, at least their number, is the
  // number of logits; ids past the entries have no bytes. Special and stop tokens are never
  // spelled. Throws std::invalid_argument.
  Vocabulary(const std::vector<std::string>& entries, Spelling spelling, int64_t size,
             std::vector<int32_t> stop_ids, std::vector<int32_t> special_ids);

  int32_t size() const { return size_; }
  int32_t num_words() const { return (size_ + 31) / 32; }
  std::string_view bytes(int32_t token) const {
    return {text_.data() + begin_[token], static_cast<size_t>(begin_[token + 1] - begin_[token])};
  }
  bool is_stop(int32_t token) const { return is_stop_[token]; }
  bool is_spelled(int32_t token) const { return is_spelled_[token]; }
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }
  const std::vector<int32_t>& special_ids() const { return special_ids_; }
  const TokenTrie& trie() const { return trie_; }
  int32_t longest() const { return trie_.max_depth; }
  uint64_t fingerprint() const { return fingerprint_; }
  size_t memory_bytes() const;
  // Tokens below a node of the trie that go on with a byte of `first`, and then within `rest`; the
  // last character may be cut off. And where the trie leaves them: nodes whose byte is another one,
  // by byte, but for those that leave at once; and nodes that break a character off, with the depth
  // at which it begins.
  struct Within {
    struct Cut {
      int32_t node, begin;
    };
    Bits bits;                 // the tokens, or none where they are
    std::vector<int32_t> ids;  // few
    std::vector<int32_t> exits;
    std::vector<int32_t> tokens;            // of exits with nothing below, which come last
    std::array<int32_t, 257> first_exit{};  // of a byte, in `exits`
    std::array<int32_t, 256> first_leaf{};  // of those with nothing below
    std::array<int32_t, 257> first_token{};
    std::vector<Cut> cuts;
  };
  // Remembered, for a while: grammars ask for the same ones.
  std::shared_ptr<const Within> within(int32_t node, const Alphabet& first,
                                       const Alphabet& rest) const;

  std::string save() const;
  static std::shared_ptr<Vocabulary> load(std::string_view data);  // std::invalid_argument

 private:
  Vocabulary() = default;
  void add_entry(std::string_view entry, Spelling spelling);
  void index();
  void sort_exits(Within& table, std::vector<int32_t> exits) const;
  std::string text_;
  std::vector<int64_t> begin_;  // [size + 1], into text_
  int32_t size_ = 0;
  std::vector<int32_t> stop_ids_, special_ids_;
  std::vector<bool> is_stop_, is_spelled_;
  TokenTrie trie_;
  uint64_t fingerprint_ = 0;
  using WithinKey = std::tuple<int32_t, Alphabet, Alphabet>;
  mutable std::mutex mutex_;
  mutable std::map<WithinKey, std::shared_ptr<const Within>> within_;
};

// FNV-1a, of 64 bits: tells files and vocabularies apart; no protection against forgery.
uint64_t checksum(std::string_view data, uint64_t seed = 0xCBF29CE484222325ull);
}  // namespace lmx::grammar
