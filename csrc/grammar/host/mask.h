// grammar/host/mask.h: which tokens may come after a configuration.
//
// A token is read from a state until it ends, or until the state's rule ends before it does. The
// first part depends on the state alone and is computed once per state (local); it leaves the rests
// of the tokens that outlive the rule. What a frame makes of these is again a matter of the states
// to return to, with fewer and shorter rests, and so on down the stack (rests): a new stack over
// known states costs a few look-ups. Where a state leaves too many rests (free text that may end
// at each character), all tokens are read from the whole configuration instead (direct).
#pragma once
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "arena.h"
#include "vocabulary.h"

namespace lmx::grammar {
// Bits (or none), and ids.
struct TokenSet {
  std::shared_ptr<const Bits> bits;  // perhaps the vocabulary's
  std::vector<int32_t> ids;

  bool is_empty() const { return !bits && ids.empty(); }
};

// Collects a token set: a short list stays one, a long one becomes bits.
class TokenSetBuilder {
 public:
  explicit TokenSetBuilder(int32_t num_words) : num_words_(num_words) {}
  void add(const int32_t* begin, const int32_t* end);
  void add(const std::shared_ptr<const Bits>& bits);
  TokenSet build();

 private:
  void make_bits();
  int32_t num_words_;
  std::shared_ptr<const Bits> shared_;
  std::shared_ptr<Bits> own_;
  std::vector<int32_t> ids_;
};

struct Mask {
  std::vector<const TokenSet*> parts;
  bool is_accepting = false;  // stop tokens too
  bool is_empty = false;
  std::atomic<int> fills{0};
  std::atomic<const uint32_t*> row{nullptr};  // written out, once it is filled again
  std::unique_ptr<Bits> row_bits;
};

class Masks {
 public:
  Masks(Arena& arena, const Vocabulary& vocabulary, const std::vector<Bits>& token_sets);

  // With the engine's lock.
  const Mask& of(int32_t config);
  void write_row(Mask& mask);
  void prepare(int32_t state);  // what is read from a state alone
  // Without any of the above: a walk of all tokens from the configuration itself.
  void fill_plainly(int32_t config, uint32_t* row);

 private:
  // What is left, from `offset` on, of all tokens at and below a node of the vocabulary's trie.
  struct Rest {
    int32_t node, offset;
    bool operator==(const Rest&) const = default;
  };
  struct Rests {
    int32_t id;
    std::vector<Rest> list;
  };
  struct Local {
    TokenSet accepted;
    const Rests* rests = nullptr;
    bool is_open = false;  // too many rests; the other members are void
  };
  // Bytes of `first` lead to `onto`, which stays where it is over `rest`, a larger alphabet.
  struct Base {
    Alphabet first, rest;
    int32_t onto = kNone;
  };
  struct Worth {
    int first, alphabet;  // bytes that a base begins with, and is over
    int32_t below;        // nodes below one with a base
    size_t rests;
  };
  struct Walk;
  static Worth worth_of(const Vocabulary& vocabulary);
  size_t most_rests(int depth) const;
  const Rests* intern(std::vector<Rest> list);
  static uint64_t key(int32_t rests, int32_t other) {
    return static_cast<uint64_t>(rests) << 32 | static_cast<uint32_t>(other);
  }
  const Local& local(const Rests& rests, Item item, int32_t& below);
  const TokenSet* rests(const Rests& rests, int32_t frame, int depth);
  const TokenSet& direct(int32_t config);
  bool add_parts(const Config& config, Mask& mask);
  void walk_all(int32_t from, Walk& w);
  void walk_rest(Rest rest, int32_t from, Walk& w);
  void walk_below(int32_t begin, int32_t end, Walk& w);
  bool enter(int32_t node, Walk& w);
  template <typename IsOut>
  void walk_root(Walk& w, const IsOut& is_out);
  void leave(int32_t node, const Base& base, const Vocabulary::Within& table, Walk& w);
  const Base& base_of(int32_t from);
  Base find_base(int32_t from);
  void account(const TokenSet& set);

  Arena& arena_;
  const Vocabulary& vocabulary_;
  const std::vector<Bits>& token_sets_;
  std::unordered_map<uint64_t, std::unique_ptr<Local>> locals_;
  std::unordered_map<uint64_t, std::unique_ptr<TokenSet>> rests_;  // null: too many
  std::unordered_map<int32_t, std::unique_ptr<TokenSet>> direct_;
  std::unordered_map<int32_t, Base> bases_;
  std::vector<std::unique_ptr<TokenSet>> edge_sets_;
  Rests everything_{0, {}};  // whole tokens
  std::deque<Rests> all_rests_;
  std::unordered_multimap<uint64_t, const Rests*> rests_by_hash_;
  Worth worth_;
};

// Writes a mask: [num_words]. False if every one of the vocabulary's tokens is allowed.
bool write_mask(const Mask& mask, const Vocabulary& vocabulary, uint32_t* row);
}  // namespace lmx::grammar
