// tests/simt/selftest.h: the harness tests itself on kernels that come in variants. "none" must
// pass; every other variant has one bug in it, the one its name says, and must be caught.
#pragma once
#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "harness.h"

namespace selftest {

// The name of a bug, as a template argument: kernel<"missing_barrier">.
struct Bug {
  char text[40] = {};
  template <size_t kSize>
  constexpr Bug(const char (&literal)[kSize]) {  // NOLINT: implicit, so that a literal is a Bug
    std::copy_n(literal, kSize, text);
  }
  constexpr bool operator==(const Bug&) const = default;
};

struct Case {
  std::string_view bug;
  const char* family;
  void (*run)();  // throws if the harness complains or the result is wrong
};

// A family is a kernel in variants, Family::kKernel<kBug>, and what it must compute,
// Family::run(kernel, name of the bug): written once, and compiled once, for all of them.
template <typename Family, Bug... kBugs>
void add_cases(std::vector<Case>& cases, const char* family) {
  (cases.push_back(
       {kBugs.text, family, [] { Family::run(Family::template kKernel<kBugs>, kBugs.text); }}),
   ...);
}

// Each adds the variants of its file, "none" included.
void add_block_cases(std::vector<Case>& cases);
void add_warp_cases(std::vector<Case>& cases);
void add_matrix_cases(std::vector<Case>& cases);
void add_global_cases(std::vector<Case>& cases);
void add_scalar_cases(std::vector<Case>& cases);

// ---- what the families share ------------------------------------------------------------------

inline void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string("wrong result: ") + what);
}

template <typename T>
struct Input : std::vector<T> {
  using std::vector<T>::vector;
  const T* in() const {
    return simt::expose(this->data(), this->size() * sizeof(T), false), this->data();
  }
};
template <typename T>
struct Output : std::vector<T> {
  using std::vector<T>::vector;
  T* out() { return simt::expose(this->data(), this->size() * sizeof(T), true), this->data(); }
  T* fresh() { return simt::expose_fresh(this->data(), this->size() * sizeof(T)), this->data(); }
};

template <typename T>
Input<T> normal(size_t size) {
  std::mt19937 rng(1);
  std::normal_distribution<float> draw;
  Input<T> values(size);
  for (T& v : values) v = static_cast<T>(draw(rng));
  return values;
}

}  // namespace selftest
