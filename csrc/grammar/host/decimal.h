// grammar/host/decimal.h: exact decimal numbers, for bounds and multiples of JSON numbers.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace lmx::grammar {
// (-1)^is_negative * 0.digits * 10^point; normal: no zero at either end of digits, zero has none.
struct Decimal {
  bool is_negative = false;
  std::string digits;
  int64_t point = 0;

  bool is_zero() const { return digits.empty(); }
  bool is_integer() const { return static_cast<int64_t>(digits.size()) <= point || is_zero(); }
  std::string whole() const;     // digits before the point, "0" if there are none
  std::string fraction() const;  // and behind it
  std::string text() const;      // shortest, without an exponent
  Decimal negated() const;
  bool operator==(const Decimal&) const = default;
};

// Of a JSON number. Throws GrammarLimitError where its digits, written out, are more than 1,000.
Decimal parse_decimal(std::string_view text);
int compare(const Decimal& a, const Decimal& b);  // -1, 0, 1
// The largest integer not above, the smallest one not below.
Decimal floor_of(const Decimal& a);
Decimal ceil_of(const Decimal& a);
Decimal plus_one(const Decimal& integer, int sign);  // integer + sign, sign = 1 or -1

// value = mantissa * 10^-scale, mantissa > 0 and no multiple of 10 unless scale is 0.
// Throws GrammarLimitError if the mantissa is above `limit`.
struct Scaled {
  int64_t mantissa;
  int scale;
};
Scaled scaled(const Decimal& positive, int64_t limit);
bool is_multiple(const Decimal& value, const Scaled& of);
Scaled least_common_multiple(Scaled a, Scaled b, int64_t limit);
// The first multiple of `of` that is not below `from`. Exact.
Decimal first_multiple(const Decimal& from, const Scaled& of);
}  // namespace lmx::grammar
