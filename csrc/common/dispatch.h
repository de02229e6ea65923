// common/dispatch.h: from a runtime integer to a template argument.
#pragma once
#include <sstream>
#include <stdexcept>
#include <type_traits>

namespace lmx {
// Calls f(std::integral_constant<int, N>{}) for the N equal to n, else throws naming the supported
// values.
template <int... Ns, typename F>
void visit_int(int n, const char* name, F&& f) {
  const bool hit = ((n == Ns && (f(std::integral_constant<int, Ns>{}), true)) || ...);
  if (hit) return;
  std::ostringstream msg;
  msg << "lmx: " << name << "=" << n << " is not compiled in; supported:";
  ((msg << ' ' << Ns), ...);
  throw std::invalid_argument(msg.str());
}
}  // namespace lmx
