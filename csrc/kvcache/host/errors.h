// kvcache/host/errors.h: what the host classes throw. module.cpp turns each into its Python class.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

namespace lmx::kvcache {
// The pool cannot give the pages of a call. Nothing was changed.
struct OutOfPages : std::runtime_error {
  OutOfPages(int64_t needed, int64_t free) : std::runtime_error(""), needed(needed), free(free) {}
  int64_t needed, free;
};
// Every row of the tables is in use.
struct OutOfRows : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A handle of no sequence of this pool: freed, or never given out.
struct StaleHandle : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The pool's books do not agree with each other: a bug, or somebody wrote to the tables.
struct Inconsistent : std::logic_error {
  using std::logic_error::logic_error;
};
}  // namespace lmx::kvcache
