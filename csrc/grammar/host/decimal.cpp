// grammar/host/decimal.cpp
#include "decimal.h"

#include <algorithm>
#include <numeric>

#include "errors.h"

namespace lmx::grammar {
namespace {
constexpr int64_t kMaxDigits = 1000;

Decimal normal(bool is_negative, std::string digits, int64_t point) {
  const size_t first = digits.find_first_not_of('0');
  if (first == std::string::npos) return {};
  digits.erase(0, first);
  point -= static_cast<int64_t>(first);
  digits.erase(digits.find_last_not_of('0') + 1);
  const auto size = static_cast<int64_t>(digits.size());
  if (std::max(size, point) - std::min<int64_t>(point, 0) > kMaxDigits)
    throw GrammarLimitError("a number of more than 1000 digits");
  return {is_negative, std::move(digits), point};
}

// Magnitude of an integer, and one more or one less.
std::string counted_up(std::string digits) {
  size_t i = digits.size();
  while (i > 0 && digits[i - 1] == '9') digits[--i] = '0';
  if (i == 0) return "1" + digits;
  ++digits[i - 1];
  return digits;
}
std::string counted_down(std::string digits) {
  size_t i = digits.size();
  while (i > 0 && digits[i - 1] == '0') digits[--i] = '9';
  if (i > 0) --digits[i - 1];
  return digits;
}
// whole + n, where the sum is not negative.
std::string moved_by(std::string whole, int64_t n) {
  for (size_t i = whole.size(); i-- > 0 && n != 0;) {
    const int64_t sum = (whole[i] - '0') + n % 10;
    n = n / 10 + (sum > 9) - (sum < 0);
    whole[i] = static_cast<char>('0' + (sum + 10) % 10);
  }
  return n > 0 ? std::to_string(n) + whole : whole;
}
Decimal integer(bool is_negative, std::string whole) {
  const auto size = static_cast<int64_t>(whole.size());
  return normal(is_negative, std::move(whole), size);
}

// The digits of value * 10^scale as an integer; false if there is a rest.
bool shifted(const Decimal& value, int scale, std::string& whole) {
  Decimal moved = value;
  moved.point += scale;
  whole = moved.whole();
  return moved.is_integer();
}
int64_t remainder(const std::string& whole, int64_t by) {
  __int128 r = 0;
  for (const char c : whole) r = (10 * r + (c - '0')) % by;
  return static_cast<int64_t>(r);
}
}  // namespace

std::string Decimal::whole() const {
  if (point <= 0) return "0";
  std::string s = digits.substr(0, static_cast<size_t>(point));
  s.resize(static_cast<size_t>(point), '0');
  return s;
}

std::string Decimal::fraction() const {
  if (is_integer()) return "";
  if (point <= 0) return std::string(static_cast<size_t>(-point), '0') + digits;
  return digits.substr(static_cast<size_t>(point));
}

std::string Decimal::text() const {
  const std::string f = fraction();
  return (is_negative ? "-" : "") + whole() + (f.empty() ? "" : "." + f);
}

Decimal Decimal::negated() const {
  Decimal d = *this;
  d.is_negative = !is_negative && !is_zero();
  return d;
}

Decimal parse_decimal(std::string_view text) {
  const bool is_negative = text.starts_with('-');
  if (is_negative) text.remove_prefix(1);
  int64_t exponent = 0;
  if (const size_t e = text.find_first_of("eE"); e != std::string_view::npos) {
    bool down = false;
    for (const char c : text.substr(e + 1)) {
      if (c == '-')
        down = true;
      else if (c != '+')
        exponent = std::min<int64_t>(10 * exponent + (c - '0'), 1000000);
    }
    if (down) exponent = -exponent;
    text = text.substr(0, e);
  }
  const size_t dot = std::min(text.find('.'), text.size());
  std::string digits(text.substr(0, dot));
  if (dot < text.size()) digits += text.substr(dot + 1);
  return normal(is_negative, std::move(digits), static_cast<int64_t>(dot) + exponent);
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.is_negative != b.is_negative) return a.is_negative ? -1 : 1;
  int order = 0;
  if (a.is_zero() || b.is_zero())
    order = a.is_zero() ? (b.is_zero() ? 0 : -1) : 1;
  else if (a.point != b.point)
    order = a.point < b.point ? -1 : 1;
  else
    order = a.digits < b.digits ? -1 : a.digits > b.digits ? 1 : 0;
  return a.is_negative ? -order : order;
}

Decimal plus_one(const Decimal& i, int sign) {
  if (i.is_zero()) return integer(sign < 0, "1");
  const bool away = i.is_negative == (sign < 0);
  return integer(i.is_negative, away ? counted_up(i.whole()) : counted_down(i.whole()));
}

Decimal floor_of(const Decimal& a) {
  if (a.is_integer()) return a;
  const Decimal cut = integer(a.is_negative, a.whole());
  return a.is_negative ? plus_one(cut, -1) : cut;
}

Decimal ceil_of(const Decimal& a) { return floor_of(a.negated()).negated(); }

Scaled scaled(const Decimal& positive, int64_t limit) {
  const int scale = static_cast<int>(positive.fraction().size());
  std::string whole;
  shifted(positive, scale, whole);
  __int128 mantissa = 0;
  for (const char c : whole) {
    mantissa = 10 * mantissa + (c - '0');
    if (mantissa > limit)
      throw GrammarLimitError("multipleOf: expected at most " + std::to_string(limit) +
                              " without its point, got " + positive.text());
  }
  return {static_cast<int64_t>(mantissa), scale};
}

bool is_multiple(const Decimal& value, const Scaled& of) {
  std::string whole;
  return shifted(value, of.scale, whole) && remainder(whole, of.mantissa) == 0;
}

Scaled least_common_multiple(Scaled a, Scaled b, int64_t limit) {
  const int scale = std::max(a.scale, b.scale);
  const auto widened = [&](Scaled s) {
    __int128 m = s.mantissa;
    for (int i = s.scale; i < scale && m <= limit; ++i) m *= 10;
    return m;
  };
  const __int128 x = widened(a), y = widened(b);
  if (x > limit || y > limit) throw GrammarLimitError("multipleOf: a common multiple is too large");
  const auto p = static_cast<int64_t>(x), q = static_cast<int64_t>(y);
  const __int128 both = static_cast<__int128>(p / std::gcd(p, q)) * q;
  if (both > limit) throw GrammarLimitError("multipleOf: a common multiple is too large");
  Scaled out{static_cast<int64_t>(both), scale};
  while (out.scale > 0 && out.mantissa % 10 == 0) out.mantissa /= 10, --out.scale;
  return out;
}

Decimal first_multiple(const Decimal& from, const Scaled& of) {
  Decimal moved = from;
  if (!moved.is_zero()) moved.point += of.scale;
  moved = ceil_of(moved);
  const int64_t left = remainder(moved.whole(), of.mantissa);
  if (left)
    moved = integer(moved.is_negative,
                    moved_by(moved.whole(), moved.is_negative ? -left : of.mantissa - left));
  if (!moved.is_zero()) moved.point -= of.scale;
  return moved;
}
}  // namespace lmx::grammar
