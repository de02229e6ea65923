// grammar/host/schema_machines.cpp: automata that read JSON strings, from behind the opening quote
// to the closing one, states by and by.
#include <algorithm>
#include <map>

#include "schema_strings.h"

namespace lmx::grammar {
namespace {
constexpr int64_t kMaxLengthTable = int64_t{1} << 26;  // bits

int hex_digit(uint8_t b) {
  if (b >= '0' && b <= '9') return b - '0';
  const int lower = b | 32;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}
// The character of a short escape, or -1.
int short_escape(uint8_t b) {
  switch (b) {
    case '"': return '"';
    case '\\': return '\\';
    case '/': return '/';
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return -1;
  }
}
bool has_short_escape(int c) {
  return c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t';
}

// States are tuples, numbered when they are reached. Number 0 is the start.
template <typename Tuple>
class Numbered : public ByteMachine {
 protected:
  int32_t intern(const Tuple& t) {
    const auto [it, is_new] = ids_.try_emplace(t, static_cast<int32_t>(tuples_.size()));
    if (is_new) tuples_.push_back(t);
    return it->second;
  }
  Tuple at(int32_t s) const { return tuples_[s]; }

 private:
  std::map<Tuple, int32_t> ids_;
  std::vector<Tuple> tuples_;
};

// ---- strings of a table ------------------------------------------------------------------------
// Escapes carry the digits of \uXXXX read so far; with `every` escape any character may be spelled
// so, as two of them beyond U+FFFF.
struct TableTuple {
  enum Kind : int8_t { kText, kBackslash, kHex, kLowBackslash, kLowU, kLowHex, kEnd };
  int32_t state = 0;
  int64_t count = 0;  // characters, capped where more make no difference
  Kind kind = kText;
  int8_t digits = 0;
  uint32_t code = 0, high = 0;
  auto operator<=>(const TableTuple&) const = default;
};

class TableMachine : public Numbered<TableTuple> {
 public:
  TableMachine(std::shared_ptr<const ByteDfa> table, int64_t min, int64_t max, bool every)
      : table_(std::move(table)), min_(min), max_(max), every_(every) {
    find_lengths();
    intern({});
  }
  std::shared_ptr<ByteMachine> clone() const override {
    return std::make_shared<TableMachine>(*this);
  }
  bool is_empty() const { return table_->states.empty() || !lives(0, 0); }

  bool is_final(int32_t s) override { return at(s).kind == TableTuple::kEnd; }

  int32_t next(int32_t s, uint8_t b) override {
    TableTuple t = at(s);
    return step(t, b) ? intern(t) : -1;
  }

 private:
  // ---- lengths: which numbers of characters are left to the end --------------------------------
  void find_lengths() {
    if (min_ == 0 && max_ == kUnbounded) return;
    const auto n = static_cast<int64_t>(table_->states.size());
    num_lengths_ = (max_ == kUnbounded ? min_ + n : max_) + 1;  // beyond min + n: see lives()
    if (n * num_lengths_ > kMaxLengthTable)
      throw GrammarLimitError("a pattern with a length of up to " +
                              std::to_string(num_lengths_ - 1) + " is too large");
    std::vector<std::vector<int32_t>> back[2];  // by whether the byte begins a character
    back[0].resize(n);
    back[1].resize(n);
    for (int32_t s = 0; s < n; ++s)
      for (const ByteEdge& e : table_->states[s].edges) {
        if (e.lo < 0x80 || e.hi >= 0xC0) back[1][e.to].push_back(s);
        if (e.lo < 0xC0 && e.hi >= 0x80) back[0][e.to].push_back(s);
      }
    std::vector<std::vector<bool>> lengths(num_lengths_, std::vector<bool>(n));
    std::vector<int32_t> queue;
    for (int64_t k = 0; k < num_lengths_; ++k) {
      const auto reach = [&](int32_t s) {
        if (!lengths[k][s]) lengths[k][s] = true, queue.push_back(s);
      };
      for (int32_t s = 0; s < n; ++s) {
        if (k == 0 && table_->states[s].is_final) reach(s);
        if (k > 0 && lengths[k - 1][s])
          for (const int32_t from : back[1][s]) reach(from);
      }
      while (!queue.empty()) {
        const int32_t s = queue.back();
        queue.pop_back();
        for (const int32_t from : back[0][s]) reach(from);
      }
    }
    lengths_ = std::make_shared<const std::vector<std::vector<bool>>>(std::move(lengths));
  }

  // Without a maximum, `min + number of states` characters stand for all longer rests: a rest of
  // more characters than states passes one twice, and can leave out what lies between.
  bool lives(int32_t s, int64_t count) const {
    if (!lengths_) return true;
    const int64_t least = std::max<int64_t>(0, min_ - count);
    const int64_t most = max_ == kUnbounded ? num_lengths_ - 1 : max_ - count;
    for (int64_t k = least; k <= most; ++k)
      if ((*lengths_)[k][s]) return true;
    return false;
  }

  // ---- steps -----------------------------------------------------------------------------------
  bool read(TableTuple& t, uint8_t decoded) const {
    if ((t.state = table_->next(t.state, decoded)) < 0) return false;
    if ((decoded & 0xC0) != 0x80) ++t.count;
    if (max_ == kUnbounded) t.count = std::min(t.count, min_);
    return lives(t.state, t.count);
  }
  bool read_char(TableTuple& t, uint32_t code) const {
    std::string text;
    append_utf8(text, code);
    for (const char c : text)
      if (!read(t, static_cast<uint8_t>(c))) return false;
    t = {t.state, t.count};
    return true;
  }
  bool may_spell(uint32_t code) const {
    return every_ || (code < 0x20 && !has_short_escape(static_cast<int>(code)));
  }
  // Whether some character can still come of an escape.
  bool has_way(const TableTuple& t) const {
    for (int b = 0; b < 128; ++b)
      if (TableTuple probe = t; step(probe, static_cast<uint8_t>(b))) return true;
    return false;
  }

  bool step(TableTuple& t, uint8_t b) const {
    switch (t.kind) {
      case TableTuple::kText: return step_text(t, b);
      case TableTuple::kBackslash: {
        if (b == 'u') {
          t.kind = TableTuple::kHex;
          return has_way(t);
        }
        const int c = short_escape(b);
        return c >= 0 && (c != '/' || every_) && read_char(t, static_cast<uint32_t>(c));
      }
      case TableTuple::kHex:
      case TableTuple::kLowHex: return step_hex(t, b);
      case TableTuple::kLowBackslash: t.kind = TableTuple::kLowU; return b == '\\';
      case TableTuple::kLowU: t.kind = TableTuple::kLowHex; return b == 'u';
      default: return false;
    }
  }

  bool step_text(TableTuple& t, uint8_t b) const {
    if (b == '"') {
      if (!table_->states[t.state].is_final || t.count < min_) return false;
      t = {.state = 0, .kind = TableTuple::kEnd};
      return true;
    }
    if (b == '\\') {
      for (const ByteEdge& e : table_->states[t.state].edges)
        if (e.lo < 0xC0 && e.hi >= 0x80) return false;  // within a character
      t.kind = TableTuple::kBackslash;
      return has_way(t);
    }
    return b >= 0x20 && read(t, b);
  }

  bool step_hex(TableTuple& t, uint8_t b) const {
    const int digit = hex_digit(b);
    if (digit < 0) return false;
    t.code = 16 * t.code + static_cast<uint32_t>(digit);
    if (++t.digits < 4) {
      if (!every_ && t.code > 1) return false;  // \u00XX
      return has_way(t);
    }
    if (t.kind == TableTuple::kLowHex) {
      if (t.code < 0xDC00 || t.code > 0xDFFF) return false;
      return read_char(t, 0x10000 + ((t.high - 0xD800) << 10) + (t.code - 0xDC00));
    }
    if (t.code >= 0xD800 && t.code < 0xDC00) {
      if (!every_) return false;
      t = {.state = t.state, .count = t.count, .kind = TableTuple::kLowBackslash, .high = t.code};
      for (uint32_t low = 0xDC00; low <= 0xDFFF; ++low)
        if (TableTuple probe = t;
            read_char(probe, 0x10000 + ((t.high - 0xD800) << 10) + low - 0xDC00))
          return true;
      return false;
    }
    return (t.code < 0xD800 || t.code > 0xDFFF) && may_spell(t.code) && read_char(t, t.code);
  }

  std::shared_ptr<const ByteDfa> table_;
  int64_t min_, max_;
  bool every_;
  int64_t num_lengths_ = 0;
  std::shared_ptr<const std::vector<std::vector<bool>>> lengths_;  // [length][state]
};

// ---- any string but some -----------------------------------------------------------------------
// While what was read begins one of the names, it is spelled as these are; then anything goes.
struct OtherTuple {
  enum Kind : int8_t { kName, kNameBackslash, kNameHex, kFree, kBackslash, kHex, kLow, kEnd };
  Kind kind = kName;
  int32_t begin = 0, end = 0, depth = 0;  // names[begin, end) share `depth` bytes with the text
  int8_t utf8 = 0, digits = 0;
  uint32_t code = 0;
  auto operator<=>(const OtherTuple&) const = default;
};

class OtherMachine : public Numbered<OtherTuple> {
 public:
  explicit OtherMachine(std::vector<std::string> names) : names_(std::move(names)) {
    intern(names_.empty() ? free(0) : OtherTuple{.end = static_cast<int32_t>(names_.size())});
  }
  std::shared_ptr<ByteMachine> clone() const override {
    return std::make_shared<OtherMachine>(*this);
  }
  bool is_final(int32_t s) override { return at(s).kind == OtherTuple::kEnd; }
  int32_t next(int32_t s, uint8_t b) override {
    OtherTuple t = at(s);
    return step(t, b) ? intern(t) : -1;
  }

 private:
  static OtherTuple free(int utf8) {
    return {.kind = OtherTuple::kFree, .utf8 = static_cast<int8_t>(utf8)};
  }
  static OtherTuple in_name(const OtherTuple& t) {
    return {OtherTuple::kName, t.begin, t.end, t.depth, t.utf8};
  }
  // A decoded byte: to the names that go on with it, or away from all.
  bool read(OtherTuple& t, uint8_t b) const {
    const int utf8 = utf8_step(t.utf8, b);
    if (utf8 < 0) return false;
    const auto byte = [&](const std::string& name) {
      return static_cast<size_t>(t.depth) < name.size() ? static_cast<uint8_t>(name[t.depth]) : -1;
    };
    int32_t begin = t.begin, end = t.end;
    while (begin < end && byte(names_[begin]) < b) ++begin;
    while (end > begin && byte(names_[end - 1]) > b) --end;
    if (begin == end)
      t = free(utf8);
    else
      t = {OtherTuple::kName, begin, end, t.depth + 1, static_cast<int8_t>(utf8)};
    return true;
  }

  bool step(OtherTuple& t, uint8_t b) const {
    const bool is_name = t.kind <= OtherTuple::kNameHex;
    switch (t.kind) {
      case OtherTuple::kName:
      case OtherTuple::kFree:
        if (b == '"') {
          const bool is_one = is_name && static_cast<size_t>(t.depth) == names_[t.begin].size();
          const bool may_end = t.utf8 == 0 && !is_one;
          t = {.kind = OtherTuple::kEnd};
          return may_end;
        }
        if (b == '\\') {
          t.kind = is_name ? OtherTuple::kNameBackslash : OtherTuple::kBackslash;
          return t.utf8 == 0;
        }
        if (b < 0x20) return false;
        if (is_name) return read(t, b);
        t.utf8 = static_cast<int8_t>(utf8_step(t.utf8, b));
        return t.utf8 >= 0;
      case OtherTuple::kNameBackslash:
      case OtherTuple::kBackslash: {
        if (b == 'u') {
          t.kind = is_name ? OtherTuple::kNameHex : OtherTuple::kHex;
          return true;
        }
        const int c = short_escape(b);
        if (c < 0 || (is_name && c == '/')) return false;
        if (!is_name) return t = free(0), true;
        t = in_name(t);
        return read(t, static_cast<uint8_t>(c));
      }
      case OtherTuple::kNameHex: return step_name_hex(t, b);
      case OtherTuple::kHex: return step_hex(t, b);
      case OtherTuple::kLow: {  // \uDXXX of a low surrogate
        constexpr std::string_view kBegin = "\\u";
        const auto i = static_cast<size_t>(t.digits++);
        if (i < 2) return b == static_cast<uint8_t>(kBegin[i]);
        const int digit = hex_digit(b);
        if (digit < 0 || (i == 2 && digit != 13) || (i == 3 && digit < 12)) return false;
        if (i == 5) t = free(0);
        return true;
      }
      default: return false;
    }
  }

  // \u00XX of a control character without a short escape.
  bool step_name_hex(OtherTuple& t, uint8_t b) const {
    const int digit = hex_digit(b);
    if (digit < 0) return false;
    t.code = 16 * t.code + static_cast<uint32_t>(digit);
    if (++t.digits < 4) return t.code <= 1;
    const uint32_t code = t.code;
    t = in_name(t);
    return code < 0x20 && !has_short_escape(static_cast<int>(code)) &&
           read(t, static_cast<uint8_t>(code));
  }

  bool step_hex(OtherTuple& t, uint8_t b) const {
    const int digit = hex_digit(b);
    if (digit < 0) return false;
    // Kept: whether it begins like a surrogate (1), is a high one (2), or neither (0).
    if (t.digits == 0) t.code = digit == 13;
    if (t.digits == 1 && t.code == 1) {
      if (digit >= 12) return false;
      t.code = digit >= 8 ? 2 : 0;
    }
    if (++t.digits < 4) return true;
    t = t.code == 2 ? OtherTuple{.kind = OtherTuple::kLow} : free(0);
    return true;
  }

  std::vector<std::string> names_;
};
}  // namespace

std::shared_ptr<ByteMachine> other_string_machine(std::vector<std::string> names) {
  return std::make_shared<OtherMachine>(std::move(names));
}

std::shared_ptr<ByteMachine> string_machine(std::shared_ptr<const ByteDfa> table, int64_t min,
                                            int64_t max, bool every_escape) {
  auto machine = std::make_shared<TableMachine>(std::move(table), min, max, every_escape);
  return machine->is_empty() ? nullptr : machine;
}
}  // namespace lmx::grammar
