// csrc/ngram/host/module.h
#pragma once
#include <pybind11/pybind11.h>

namespace lmx::ngram {
void bind(pybind11::module_& parent);  // adds the submodule `ngram`
}
