// grammar/host/vocabulary.cpp
#include "vocabulary.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "charset.h"

namespace lmx::grammar {
namespace {
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxTokenBytes = 65535;
constexpr size_t kMaxWithin = 512;   // tables that are remembered
constexpr size_t kFewWithin = 1000;  // tokens of one that are kept as a list

// GPT-2's characters for bytes: printable ones stand for themselves, the others, in order, are
// U+0100 and up. By code point; -1 for characters that stand for no byte.
std::array<int16_t, 512> byte_of_char() {
  std::array<int16_t, 512> table;
  table.fill(-1);
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool is_itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    table[is_itself ? b : next++] = static_cast<int16_t>(b);
  }
  return table;
}

std::string from_byte_level(std::string_view entry) {
  static const std::array<int16_t, 512> table = byte_of_char();
  std::string out;
  for (size_t i = 0; i < entry.size();) {
    const uint32_t c = next_code_point(entry, i);
    if (c >= table.size() || table[c] < 0) return std::string(entry);  // an added token: as it is
    out += static_cast<char>(table[c]);
  }
  return out;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

std::string from_sentencepiece(std::string_view entry) {
  if (entry.size() == 6 && entry.substr(0, 3) == "<0x" && entry[5] == '>' &&
      hex_value(entry[3]) >= 0 && hex_value(entry[4]) >= 0)
    return std::string(1, static_cast<char>(hex_value(entry[3]) * 16 + hex_value(entry[4])));
  constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581
  std::string out;
  for (size_t i = 0; i < entry.size();) {
    if (entry.substr(i, 3) == kSpace)
      out += ' ', i += 3;
    else
      out += entry[i++];
  }
  return out;
}

void check_ids(const char* name, std::vector<int32_t>& ids, int64_t size) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (!ids.empty() && (ids.front() < 0 || ids.back() >= size))
    throw std::invalid_argument(std::string("TokenizerInfo: expected ") + name + " in [0, " +
                                std::to_string(size) + "), got " +
                                std::to_string(ids.front() < 0 ? ids.front() : ids.back()));
}
}  // namespace

uint64_t checksum(std::string_view data, uint64_t h) {
  for (const char c : data) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  return h;
}

Vocabulary::Vocabulary(const std::vector<std::string>& entries, Spelling spelling, int64_t size,
                       std::vector<int32_t> stop_ids, std::vector<int32_t> special_ids) {
  const auto given = static_cast<int64_t>(entries.size());
  if (size < 0) size = given;
  if (size < given || size > kMaxVocab || size == 0)
    throw std::invalid_argument("TokenizerInfo: expected vocab_size in [" +
                                std::to_string(std::max<int64_t>(given, 1)) + ", " +
                                std::to_string(kMaxVocab) + "], got " + std::to_string(size));
  check_ids("stop_ids", stop_ids, size);
  check_ids("special_ids", special_ids, size);
  size_ = static_cast<int32_t>(size);
  stop_ids_ = std::move(stop_ids);
  special_ids_ = std::move(special_ids);
  begin_.reserve(size + 1);
  begin_.push_back(0);
  for (const std::string& entry : entries) add_entry(entry, spelling);
  begin_.resize(size + 1, static_cast<int64_t>(text_.size()));
  index();
}

void Vocabulary::add_entry(std::string_view entry, Spelling spelling) {
  if (spelling == Spelling::raw)
    text_ += entry;
  else
    text_ += spelling == Spelling::byte_level ? from_byte_level(entry) : from_sentencepiece(entry);
  const auto end = static_cast<int64_t>(text_.size());
  if (end - begin_.back() > kMaxTokenBytes)
    throw std::invalid_argument("TokenizerInfo: expected tokens of at most 65535 bytes, got " +
                                std::to_string(end - begin_.back()));
  begin_.push_back(end);
}

void Vocabulary::index() {
  is_stop_.assign(size_, false);
  is_spelled_.assign(size_, false);
  for (int32_t t = 0; t < size_; ++t) is_spelled_[t] = !bytes(t).empty();
  for (const int32_t t : special_ids_) is_spelled_[t] = false;
  for (const int32_t t : stop_ids_) is_stop_[t] = true, is_spelled_[t] = false;
  struct Key {
    uint64_t head;  // the first eight bytes, big-endian: most comparisons end here
    int32_t token;
  };
  std::vector<Key> keys;
  keys.reserve(size_);
  for (int32_t t = 0; t < size_; ++t) {
    if (!is_spelled_[t]) continue;
    const std::string_view s = bytes(t);
    uint8_t head[8] = {};
    std::memcpy(head, s.data(), std::min<size_t>(8, s.size()));
    uint64_t word;
    std::memcpy(&word, head, 8);
    keys.push_back({__builtin_bswap64(word), t});
  }
  std::sort(keys.begin(), keys.end(), [&](const Key& a, const Key& b) {
    if (a.head != b.head) return a.head < b.head;
    const int order = bytes(a.token).compare(bytes(b.token));
    return order < 0 || (order == 0 && a.token < b.token);
  });
  std::vector<int32_t> tokens;
  std::vector<std::string_view> text;
  for (const Key& key : keys) {
    tokens.push_back(key.token);
    text.push_back(bytes(key.token));
  }
  trie_ = TokenTrie::build(std::move(tokens), text);
  fingerprint_ = checksum(save());
}

// By byte, and of each byte those with nothing below last.
void Vocabulary::sort_exits(Within& table, std::vector<int32_t> exits) const {
  const auto& nodes = trie_.nodes;
  const auto rank = [&](int32_t i) { return 2 * nodes[i].byte + (nodes[i].size == 1); };
  std::stable_sort(exits.begin(), exits.end(),
                   [&](int32_t a, int32_t b) { return rank(a) < rank(b); });
  size_t k = 0;
  for (int b = 0; b < 256; ++b) {
    table.first_exit[b] = static_cast<int32_t>(k);
    table.first_token[b] = static_cast<int32_t>(table.tokens.size());
    while (k < exits.size() && rank(exits[k]) == 2 * b) ++k;
    table.first_leaf[b] = static_cast<int32_t>(k);
    for (; k < exits.size() && rank(exits[k]) == 2 * b + 1; ++k)
      table.tokens.insert(table.tokens.end(), trie_.tokens.begin() + nodes[exits[k]].first,
                          trie_.tokens.begin() + nodes[exits[k] + 1].first);
  }
  table.first_exit[256] = static_cast<int32_t>(k);
  table.first_token[256] = static_cast<int32_t>(table.tokens.size());
  table.exits = std::move(exits);
}

std::shared_ptr<const Vocabulary::Within> Vocabulary::within(int32_t node, const Alphabet& first,
                                                             const Alphabet& rest) const {
  const std::lock_guard lock(mutex_);
  if (within_.size() >= kMaxWithin) within_.clear();  // who uses one keeps it
  auto& known = within_[{node, first, rest}];
  if (known) return known;
  auto made = std::make_shared<Within>();
  const auto& nodes = trie_.nodes;
  const int32_t top = nodes[node].depth, end = node + nodes[node].size;
  struct Place {
    int utf8;       // the reader's state
    int32_t begin;  // the depth at which the character begins
  };
  std::vector<Place> places(trie_.max_depth + 1, {0, top});
  std::vector<int32_t> exits;
  for (int32_t i = node + 1; i < end;) {
    const TokenTrie::Node& n = nodes[i];
    const bool is_first = n.depth == top + 1;
    Place at = places[n.depth - 1];
    if (at.utf8 == 0) at.begin = n.depth - 1;
    const int after = utf8_step(at.utf8, n.byte);
    if (after < 0 || !(is_first ? first : rest).has(n.byte)) {
      if (at.utf8 != 0)
        made->cuts.push_back({i, at.begin});
      else if (!is_first)
        exits.push_back(i);
      i += n.size;
      continue;
    }
    const bool is_whole = at.utf8 == 0 && rest.covers(trie_.content[i]);
    places[n.depth] = {after, at.begin};
    const int32_t next = is_whole ? i + n.size : i + 1;
    made->ids.insert(made->ids.end(), trie_.tokens.begin() + n.first,
                     trie_.tokens.begin() + nodes[next].first);
    i = next;
  }
  if (made->ids.size() > kFewWithin) {
    made->bits.assign(num_words(), 0);
    for (const int32_t t : made->ids) set_bit(made->bits.data(), t);
    made->ids = {};
  }
  sort_exits(*made, std::move(exits));
  return known = std::move(made);
}

size_t Vocabulary::memory_bytes() const {
  const std::lock_guard lock(mutex_);
  return text_.size() + begin_.size() * 8 + trie_.memory_bytes() + within_.size() * num_words() * 4;
}

// ---- files: magic, version, sizes, payload, checksum; all little-endian ----------------------
namespace {
constexpr char kMagic[8] = {'l', 'm', 'x', 't', 'o', 'k', '0', '1'};

void put(std::string& out, const void* data, size_t bytes) {
  if (bytes) out.append(static_cast<const char*>(data), bytes);
}

struct Reader {
  std::string_view data;
  void get(void* to, size_t bytes) {
    if (bytes > data.size()) throw std::invalid_argument("TokenizerInfo: the file is cut off");
    if (bytes) std::memcpy(to, data.data(), bytes);  // an empty vector has no address
    data.remove_prefix(bytes);
  }
  template <typename T>
  std::vector<T> many(int64_t count) {
    if (count < 0 || count > static_cast<int64_t>(data.size() / sizeof(T)))
      throw std::invalid_argument("TokenizerInfo: the file is cut off");
    std::vector<T> out(count);
    get(out.data(), count * sizeof(T));
    return out;
  }
};
}  // namespace

std::string Vocabulary::save() const {
  std::string out(kMagic, sizeof kMagic);
  const int64_t sizes[] = {size_, static_cast<int64_t>(text_.size()),
                           static_cast<int64_t>(stop_ids_.size()),
                           static_cast<int64_t>(special_ids_.size())};
  put(out, sizes, sizeof sizes);
  put(out, begin_.data(), begin_.size() * 8);
  put(out, stop_ids_.data(), stop_ids_.size() * 4);
  put(out, special_ids_.data(), special_ids_.size() * 4);
  out += text_;
  const uint64_t sum = checksum(out);
  put(out, &sum, sizeof sum);
  return out;
}

std::shared_ptr<Vocabulary> Vocabulary::load(std::string_view data) {
  const auto bad = [](const char* what) {
    throw std::invalid_argument(std::string("TokenizerInfo: ") + what);
  };
  if (data.size() < sizeof kMagic + 40 || std::memcmp(data.data(), kMagic, sizeof kMagic))
    bad("not a file of TokenizerInfo.save, version 1");
  uint64_t sum;
  std::memcpy(&sum, data.data() + data.size() - 8, 8);
  if (checksum(data.substr(0, data.size() - 8)) != sum) bad("the file's checksum is wrong");
  Reader reader{data.substr(sizeof kMagic, data.size() - sizeof kMagic - 8)};
  int64_t sizes[4];
  reader.get(sizes, sizeof sizes);
  if (sizes[0] < 1 || sizes[0] > kMaxVocab) bad("the file's vocabulary size is out of range");
  const std::shared_ptr<Vocabulary> v(new Vocabulary);
  v->size_ = static_cast<int32_t>(sizes[0]);
  v->begin_ = reader.many<int64_t>(sizes[0] + 1);
  v->stop_ids_ = reader.many<int32_t>(sizes[2]);
  v->special_ids_ = reader.many<int32_t>(sizes[3]);
  const std::vector<char> text = reader.many<char>(sizes[1]);
  v->text_.assign(text.begin(), text.end());
  check_ids("stop_ids", v->stop_ids_, sizes[0]);
  check_ids("special_ids", v->special_ids_, sizes[0]);
  bool ordered = v->begin_.front() == 0 && v->begin_.back() == sizes[1];
  for (int64_t t = 0; t < sizes[0]; ++t)
    ordered &=
        v->begin_[t] <= v->begin_[t + 1] && v->begin_[t + 1] - v->begin_[t] <= kMaxTokenBytes;
  if (!ordered) bad("the file's offsets are out of order");
  v->index();
  return v;
}
}  // namespace lmx::grammar
