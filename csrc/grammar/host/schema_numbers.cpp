// grammar/host/schema_numbers.cpp: sets of numbers, and automata that read them digit by digit.
#include <algorithm>
#include <map>

#include "lazy.h"
#include "schema_sets.h"

namespace lmx::grammar {
namespace {
constexpr size_t kMaxStates = 200000;
enum Order : int8_t { kLess = -1, kEqual = 0, kGreater = 1 };

// Digits of a bound on the magnitude.
struct Limit {
  bool is_set = false, is_open = false;
  std::string whole = "0", fraction;
};

Limit limit_of(const std::optional<Bound>& bound, bool is_negated) {
  if (!bound) return {};
  const Decimal value = is_negated ? bound->value.negated() : bound->value;
  if (value.is_negative) return {true, true, "-", ""};  // below every magnitude
  return {true, bound->is_open, value.whole(), value.fraction()};
}

// The texts of a sign: magnitudes between two limits.
struct Side {
  bool is_used = true;
  Limit low, high;
};

// States are made when they are reached. Where a state may have no way to the end, all of them are
// made at once, and those are left out.
class NumberMachine : public ByteMachine {
 public:
  NumberMachine(const NumberSet& set, bool integer_fraction) {
    sides_[0] = {true, limit_of(set.low, false), limit_of(set.high, false)};
    sides_[1] = {true, limit_of(set.high, true), limit_of(set.low, true)};
    for (Side& side : sides_) {
      if (side.low.whole == "-") side.low = {};
      side.is_used = side.high.whole != "-";
      digits_ = std::max({digits_, side.low.fraction.size(), side.high.fraction.size()});
    }
    if (set.multiple.mantissa) moduli_.push_back(set.multiple);
    has_multiple_ = set.multiple.mantissa != 0;
    moduli_.insert(moduli_.end(), set.not_multiples.begin(), set.not_multiples.end());
    for (const Scaled& m : moduli_) digits_ = std::max(digits_, static_cast<size_t>(m.scale));
    has_fraction_ = !set.is_integer() || integer_fraction;
    intern({});
    is_pruned_ = set.low || set.high || moduli_.size() > has_multiple_;
    if (is_pruned_) prune();
  }

  int32_t next(int32_t s, uint8_t b) override {
    if (is_pruned_) return table_[s][column(b)];
    State to = states_[s];
    return read(to, b) && may_end(to) ? intern(to) : -1;
  }
  bool is_final(int32_t s) override { return ends(states_[s]); }
  std::shared_ptr<ByteMachine> clone() const override {
    return std::make_shared<NumberMachine>(*this);
  }
  bool is_empty() const { return is_pruned_ && is_dead_; }

 private:
  enum Phase : int8_t { kStart, kMinus, kZero, kWhole, kPoint, kFraction };
  struct State {
    Phase phase = kStart;
    int8_t side = 0;
    int16_t count = 0;  // digits of the part, capped
    Order low = kEqual, high = kEqual;
    std::vector<int64_t> rest;  // by modulus; -1: cannot be a multiple
    auto operator<=>(const State&) const = default;
  };

  static int column(uint8_t b) {
    return b >= '0' && b <= '9' ? b - '0' : b == '-' ? 10 : b == '.' ? 11 : 12;
  }

  int32_t intern(const State& state) {
    const auto [it, is_new] = ids_.try_emplace(state, static_cast<int32_t>(states_.size()));
    if (is_new) states_.push_back(state);
    return it->second;
  }

  static Order order(char digit, char limit) {
    return digit < limit ? kLess : digit > limit ? kGreater : kEqual;
  }

  // ---- reading -------------------------------------------------------------------------------
  bool read(State& s, uint8_t b) const {
    if (b == '-') {
      if (s.phase != kStart || !sides_[1].is_used) return false;
      s.phase = kMinus;
      s.side = 1;
      return true;
    }
    if (b == '.') {
      if (!has_fraction_ || (s.phase != kZero && s.phase != kWhole)) return false;
      end_whole(s);
      s.phase = kPoint;
      s.count = 0;
      return true;
    }
    return b >= '0' && b <= '9' && read_digit(s, static_cast<char>(b));
  }

  bool read_digit(State& s, char digit) const {
    if (s.phase == kZero || (s.phase == kStart && !sides_[0].is_used)) return false;
    const Side& side = sides_[s.side];
    if (s.phase == kStart || s.phase == kMinus) {
      s.phase = digit == '0' ? kZero : kWhole;
      s.rest.assign(moduli_.size(), 0);
      s.count = 0;
    }
    const auto i = static_cast<size_t>(s.count);
    if (s.phase == kZero || s.phase == kWhole) {
      if (side.low.is_set && s.low == kEqual && i < side.low.whole.size())
        s.low = order(digit, side.low.whole[i]);
      if (side.high.is_set && s.high == kEqual && i < side.high.whole.size())
        s.high = order(digit, side.high.whole[i]);
      const size_t most = std::max(side.low.whole.size(), side.high.whole.size()) + 1;
      s.count = static_cast<int16_t>(std::min(i + 1, most));
      if (side.high.is_set && i + 1 > side.high.whole.size()) return false;
    } else {
      const auto at = [&](const Limit& l) { return i < l.fraction.size() ? l.fraction[i] : '0'; };
      if (side.low.is_set && s.low == kEqual) s.low = order(digit, at(side.low));
      if (side.high.is_set && s.high == kEqual) s.high = order(digit, at(side.high));
      s.phase = kFraction;
      s.count = static_cast<int16_t>(std::min(i + 1, digits_));
    }
    const bool in_fraction = s.phase == kFraction;
    for (size_t m = 0; m < moduli_.size(); ++m) {
      int64_t& rest = s.rest[m];
      if (rest >= 0 && (!in_fraction || i < static_cast<size_t>(moduli_[m].scale)))
        rest = (10 * rest + (digit - '0')) % moduli_[m].mantissa;
      else if (digit != '0')
        rest = -1;
    }
    return !has_multiple_ || s.rest[0] >= 0;
  }

  // Length decides where digits did not.
  void end_whole(State& s) const {
    const Side& side = sides_[s.side];
    const auto n = static_cast<size_t>(s.count);
    if (side.low.is_set && n != side.low.whole.size())
      s.low = n < side.low.whole.size() ? kLess : kGreater;
    if (side.high.is_set && n != side.high.whole.size())
      s.high = n < side.high.whole.size() ? kLess : kGreater;
  }

  // ---- ends ------------------------------------------------------------------------------------
  bool is_zero_from(const std::string& fraction, int16_t count) const {
    const auto i = std::min(fraction.size(), static_cast<size_t>(count));
    return fraction.find_first_not_of('0', i) == std::string::npos;
  }

  bool is_multiple_at(const State& s, size_t m) const {
    if (s.rest[m] < 0) return false;
    const int missing = moduli_[m].scale - (s.phase == kFraction ? s.count : 0);
    __int128 rest = s.rest[m];
    for (int i = 0; i < missing; ++i) rest = 10 * rest % moduli_[m].mantissa;
    return rest % moduli_[m].mantissa == 0;
  }

  bool ends(State s) const {
    if (s.phase != kZero && s.phase != kWhole && s.phase != kFraction) return false;
    if (s.phase != kFraction) end_whole(s), s.count = 0;
    const Side& side = sides_[s.side];
    const auto is_within = [&](const Limit& l, Order o, Order wrong) {
      if (!l.is_set) return true;
      if (o == kEqual && !is_zero_from(l.fraction, s.count)) o = kLess;
      return o != wrong && !(o == kEqual && l.is_open);
    };
    if (!is_within(side.low, s.low, kLess) || !is_within(side.high, s.high, kGreater)) return false;
    for (size_t m = 0; m < moduli_.size(); ++m)
      if (is_multiple_at(s, m) != (m == 0 && has_multiple_)) return false;
    return true;
  }

  // Whether digits can still make a multiple, where nothing else is asked.
  bool may_end(const State& s) const {
    if (!has_multiple_ || s.rest.empty()) return true;
    const Scaled m = moduli_[0];
    if (s.phase == kStart || s.phase == kMinus || s.phase == kWhole) return true;
    int left = m.scale - (s.phase == kFraction ? s.count : 0);
    if (s.phase == kZero && !has_fraction_) left = 0;
    __int128 span = 1, rest = s.rest[0];
    for (int i = 0; i < left; ++i) span *= 10, rest = 10 * rest % m.mantissa;
    return (m.mantissa - rest) % m.mantissa < span;
  }

  void prune() {
    constexpr char kBytes[] = "0123456789-.";
    std::vector<std::vector<int32_t>> back;
    for (size_t i = 0; i < states_.size(); ++i) {
      if (states_.size() > kMaxStates)
        throw GrammarLimitError("bounds with multiples: more than 200000 states");
      table_.emplace_back();
      table_[i].fill(-1);
      for (int k = 0; k < 12; ++k) {
        State to = states_[i];
        if (!read(to, static_cast<uint8_t>(kBytes[k]))) continue;
        const int32_t id = table_[i][k] = intern(to);
        back.resize(states_.size());
        back[id].push_back(static_cast<int32_t>(i));
      }
    }
    back.resize(states_.size());
    std::vector<bool> lives(states_.size());
    std::vector<int32_t> queue;
    for (size_t i = 0; i < states_.size(); ++i)
      if (ends(states_[i])) lives[i] = true, queue.push_back(static_cast<int32_t>(i));
    while (!queue.empty()) {
      const int32_t s = queue.back();
      queue.pop_back();
      for (const int32_t from : back[s])
        if (!lives[from]) lives[from] = true, queue.push_back(from);
    }
    for (auto& row : table_)
      for (int32_t& to : row)
        if (to >= 0 && !lives[to]) to = -1;
    is_dead_ = !lives[0];
  }

  Side sides_[2];
  std::vector<Scaled> moduli_;  // the one that must divide first, if there is one
  bool has_multiple_ = false, has_fraction_ = true, is_pruned_ = false, is_dead_ = false;
  size_t digits_ = 0;  // of fractions that matter
  std::map<State, int32_t> ids_;
  std::vector<State> states_;
  std::vector<std::array<int32_t, 13>> table_;
};

const Bound& tighter(const Bound& a, const Bound& b, int sign) {
  const int order = sign * compare(a.value, b.value);
  return order > 0 || (order == 0 && a.is_open) ? a : b;
}
}  // namespace

bool NumberSet::has(const Decimal& d) const {
  if (is_finite)
    return std::any_of(values.begin(), values.end(), [&](const Value& v) { return v.value == d; });
  if (low && compare(d, low->value) < (low->is_open ? 1 : 0)) return false;
  if (high && compare(high->value, d) < (high->is_open ? 1 : 0)) return false;
  if (multiple.mantissa && !is_multiple(d, multiple)) return false;
  return std::none_of(not_multiples.begin(), not_multiples.end(),
                      [&](const Scaled& m) { return is_multiple(d, m); });
}

NumberSet intersection(const NumberSet& a, const NumberSet& b) {
  if (a.is_finite || b.is_finite) {
    NumberSet out{.is_finite = true};
    for (const auto& v : (a.is_finite ? a : b).values)
      if ((a.is_finite ? b : a).has(v.value)) out.values.push_back(v);
    return out;
  }
  NumberSet out = a;
  if (b.low) out.low = out.low ? tighter(*out.low, *b.low, 1) : *b.low;
  if (b.high) out.high = out.high ? tighter(*out.high, *b.high, -1) : *b.high;
  if (b.multiple.mantissa)
    out.multiple = out.multiple.mantissa
                       ? least_common_multiple(out.multiple, b.multiple, kMaxMultiple)
                       : b.multiple;
  for (const Scaled& m : b.not_multiples) {
    const auto same = [&](const Scaled& s) {
      return s.mantissa == m.mantissa && s.scale == m.scale;
    };
    if (std::none_of(out.not_multiples.begin(), out.not_multiples.end(), same))
      out.not_multiples.push_back(m);
  }
  return out;
}

std::vector<NumberSet> complement(const NumberSet& a) {
  std::vector<NumberSet> out;
  if (a.is_finite) {  // the intervals between its values
    std::vector<Decimal> sorted;
    for (const auto& v : a.values) sorted.push_back(v.value);
    std::sort(sorted.begin(), sorted.end(),
              [](const Decimal& x, const Decimal& y) { return compare(x, y) < 0; });
    NumberSet gap;
    for (const Decimal& d : sorted) {
      if (gap.low && gap.low->value == d) continue;
      gap.high = Bound{d, true};
      out.push_back(gap);
      gap.high.reset();
      gap.low = Bound{d, true};
    }
    out.push_back(gap);
    return out;
  }
  if (a.low) out.push_back({.high = Bound{a.low->value, !a.low->is_open}});
  if (a.high) out.push_back({.low = Bound{a.high->value, !a.high->is_open}});
  if (a.multiple.mantissa) out.push_back({.not_multiples = {a.multiple}});
  for (const Scaled& m : a.not_multiples) out.push_back({.multiple = m});
  return out;
}

bool is_empty(const NumberSet& a) {
  if (a.is_finite) return a.values.empty();
  if (a.low && a.high) {
    const int order = compare(a.low->value, a.high->value);
    if (order > 0 || (order == 0 && (a.low->is_open || a.high->is_open))) return true;
    if (a.multiple.mantissa && a.not_multiples.empty()) {
      const Decimal first = first_multiple(a.low->value, a.multiple);
      if (!a.low->is_open || first != a.low->value)
        return compare(first, a.high->value) > (a.high->is_open ? -1 : 0);
      return NumberMachine(a, false).is_empty();
    }
  }
  return !a.not_multiples.empty() && NumberMachine(a, false).is_empty();
}

std::shared_ptr<ByteMachine> number_machine(const NumberSet& a, bool integer_fraction) {
  return std::make_shared<NumberMachine>(a, integer_fraction);
}
}  // namespace lmx::grammar
