// grammar/host/schema_module.cpp: JSON schemas in Python, for lmx._C.grammar.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "module.h"
#include "schema.h"
#include "tags.h"

namespace py = pybind11;

namespace lmx::grammar {
void bind_schema(py::module_& m) {
  py::class_<SchemaOptions>(m, "SchemaOptions")
      .def(py::init<>())
      .def_readwrite("any_order", &SchemaOptions::any_order)
      .def_readwrite("strict", &SchemaOptions::strict)
      .def_readwrite("lenient", &SchemaOptions::lenient)
      .def_readwrite("integer_fraction", &SchemaOptions::integer_fraction)
      .def_readwrite("every_escape", &SchemaOptions::every_escape)
      .def_readwrite("formats", &SchemaOptions::formats)
      .def_readwrite("gap", &SchemaOptions::gap)
      .def_readwrite("item_separator", &SchemaOptions::item_separator)
      .def_readwrite("key_separator", &SchemaOptions::key_separator)
      .def_readwrite("indent", &SchemaOptions::indent)
      .def_readwrite("registry", &SchemaOptions::registry);
  m.def("schema_grammar", &schema_grammar, py::arg("text"), py::arg("options"),
        py::call_guard<py::gil_scoped_release>());
  m.def("explain_schema", &explain_schema, py::arg("text"), py::arg("options"),
        py::call_guard<py::gil_scoped_release>());
  // token_of: the id of a token by its text; raises where there is none.
  m.def("structural_tag",
        [](const std::string& text, const SchemaOptions& options, const py::function& token_of) {
          return structural_tag(text, options, [&](const std::string& token) {
            return token_of(token).cast<int32_t>();
          });
        });
}

bool raise_schema_error(std::exception_ptr p, void (*raise)(const char*, const char*)) {
  try {
    std::rethrow_exception(p);
  } catch (const UnsupportedSchemaError& e) {
    raise("UnsupportedSchemaError", e.what());
  } catch (const UnsatisfiableSchemaError& e) {
    raise("UnsatisfiableSchemaError", e.what());
  } catch (...) {
    return false;
  }
  return true;
}
}  // namespace lmx::grammar
