// csrc/module.cpp: the importable _C: build facts and host classes. Compiled for the baseline, so
// that it can say on an old machine what is missing.
#include <pybind11/pybind11.h>

#include "common/isa.h"
#include "ngram/host/module.h"

namespace lmx::kvcache {
void bind_host(pybind11::module_& m);  // kvcache/host/module.cpp
}
namespace lmx::grammar {
void bind_host(pybind11::module_& m);  // grammar/host/module.cpp
}

PYBIND11_MODULE(_C, m) {
  m.attr("cpu_isa") = lmx::isa_name(lmx::isa_level());
  m.attr("torch_target") = LMX_TORCH_TARGET;
  lmx::ngram::bind(m);
  auto kvcache = m.def_submodule("kvcache");
  lmx::kvcache::bind_host(kvcache);
  auto grammar = m.def_submodule("grammar");
  lmx::grammar::bind_host(grammar);
}
