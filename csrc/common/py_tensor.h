// common/py_tensor.h: host classes only. A torch.Tensor handed to a pybind11 method, checked, as a pointer.
//
// A call through torch's dispatcher costs 4-6 microseconds; the attributes read here cost a few hundred
// nanoseconds together, so that a per-token host call (Matcher.fill) stays below one. No numpy in between.
#pragma once
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

namespace lmx {
// The names of one tensor's attributes, interned once.
struct TensorNames {
  PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
  PyObject* dtype = PyUnicode_InternFromString("dtype");
  PyObject* shape = PyUnicode_InternFromString("shape");
  PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
  PyObject* is_contiguous = PyUnicode_InternFromString("is_contiguous");
  static const TensorNames& get() {
    static const TensorNames names;
    return names;
  }
};

inline pybind11::object tensor_attribute(pybind11::handle tensor, PyObject* name, const char* op,
                                         const char* argument) {
  PyObject* value = PyObject_GetAttr(tensor.ptr(), name);
  if (!value) {
    PyErr_Clear();
    throw pybind11::type_error(std::string("lmx.") + op + ": expected " + argument +
                               " a torch.Tensor, got " + Py_TYPE(tensor.ptr())->tp_name);
  }
  return pybind11::reinterpret_steal<pybind11::object>(value);
}

// The data of a contiguous CPU tensor of torch's dtype object `dtype` and of shape [rows, columns]; a
// negative size matches any, and the tensor's own is written back. Throws TypeError or ValueError.
template <typename T>
T* tensor_data(pybind11::handle tensor, pybind11::handle dtype, int64_t& rows, int64_t& columns,
               const char* op, const char* argument) {
  const TensorNames& names = TensorNames::get();
  const std::string where = std::string("lmx.") + op + ": expected " + argument;
  const auto shape = tensor_attribute(tensor, names.shape, op, argument);
  if (!PyTuple_Check(shape.ptr()) || PyTuple_GET_SIZE(shape.ptr()) != 2)
    throw pybind11::value_error(where + " of 2 dimensions, got shape " +
                                std::string(pybind11::str(shape)));
  int64_t* wanted[] = {&rows, &columns};
  for (int d = 0; d < 2; ++d) {
    const int64_t size = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), d));
    if (*wanted[d] >= 0 && *wanted[d] != size)
      throw pybind11::value_error(where + " with size " + std::to_string(*wanted[d]) +
                                  " in dimension " + std::to_string(d) + ", got shape " +
                                  std::string(pybind11::str(shape)));
    *wanted[d] = size;
  }
  if (!tensor_attribute(tensor, names.dtype, op, argument).is(dtype))
    throw pybind11::value_error(where + " of dtype " + std::string(pybind11::str(dtype)) +
                                ", got " + std::string(pybind11::str(tensor.attr("dtype"))));
  if (tensor_attribute(tensor, names.is_cpu, op, argument).ptr() != Py_True)
    throw pybind11::value_error(where + " on the CPU");
  const auto contiguous = pybind11::reinterpret_steal<pybind11::object>(
      PyObject_CallMethodNoArgs(tensor.ptr(), names.is_contiguous));
  if (contiguous.ptr() != Py_True) throw pybind11::value_error(where + " contiguous");
  const auto pointer = pybind11::reinterpret_steal<pybind11::object>(
      PyObject_CallMethodNoArgs(tensor.ptr(), names.data_ptr));
  if (!pointer) throw pybind11::error_already_set();
  return static_cast<T*>(PyLong_AsVoidPtr(pointer.ptr()));
}
}  // namespace lmx
