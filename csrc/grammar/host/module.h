// grammar/host/module.h: the parts of lmx._C.grammar, one per file.
#pragma once
#include <pybind11/pybind11.h>

#include <exception>

namespace lmx::grammar {
void bind_schema(pybind11::module_& m);
// Whether it was an error of schemas; `raise` sets the Python error of a name in lmx.errors.
bool raise_schema_error(std::exception_ptr p, void (*raise)(const char* name, const char* what));
}  // namespace lmx::grammar
