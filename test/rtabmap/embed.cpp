// Calls a Python detector and matcher as RTAB-Map does: one interpreter without sys.argv, initialized on the main
// thread; several detectors and matchers, each of which imports the module and calls init on its first use; calls from
// other threads with the GIL; arrays over memory that is gone after the call; results read as flat C arrays of the
// types that it asserts; and error messages that have to be ASCII.
//
// After corelib/src/python/{PythonInterface,PyDetector,PyMatcher}.cpp of github.com/introlab/rtabmap.
//
// usage: embed DETECTOR.py MATCHER.py IMAGE0.pgm IMAGE1.pgm OUTPUT

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_API_VERSION
#include <numpy/arrayobject.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#define REQUIRE(condition) \
  do { \
    if (!(condition)) { \
      std::cerr << "line " << __LINE__ << ": " #condition << std::endl; \
      if (PyErr_Occurred()) PyErr_Print(); \
      std::_Exit(3); \
    } \
  } while (0)

struct Image
{
  npy_intp width = 0, height = 0;
  std::vector<unsigned char> data;
};

struct Found
{
  int count = 0, size = 0;
  std::vector<float> keypoints, scores, descriptors;
};

struct Gil
{
  PyGILState_STATE state = PyGILState_Ensure();
  ~Gil() {PyGILState_Release(state);}
};

// getPythonTraceback
std::string traceback()
{
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  PyRun_SimpleString(
    "def get_pretty_traceback(exc_type, exc_value, exc_tb):\n"
    "    import traceback\n"
    "    return '\\n'.join(traceback.format_exception(exc_type, exc_value, exc_tb))\n");
  PyObject * method = PyObject_GetAttrString(PyImport_ImportModule("__main__"), "get_pretty_traceback");
  PyObject * text = PyObject_CallObject(method, Py_BuildValue("OOO", type, value, trace));
  REQUIRE(text);
  PyObject * ascii = PyUnicode_AsASCIIString(text);  // RTAB-Map reads from a null pointer if this fails
  REQUIRE(ascii);
  return PyBytes_AsString(ascii);
}

// What PyDetector and PyMatcher have in common.
struct Script
{
  PyObject *module = nullptr, *function = nullptr;

  explicit Script(const std::string & path)
  {
    Gil gil;
    const auto slash = path.rfind('/');
    PyRun_SimpleString("import sys");
    PyRun_SimpleString(("sys.path.append(\"" + path.substr(0, slash) + "\")").c_str());
    PyObject * name = PyUnicode_FromString(path.substr(slash + 1, path.rfind('.') - slash - 1).c_str());
    module = PyImport_Import(name);
    Py_DECREF(name);
    REQUIRE(module);
  }

  ~Script()
  {
    Gil gil;
    Py_XDECREF(function);
    Py_DECREF(module);
  }

  template<typename ... Arguments>
  bool prepare(const char * name, const char * format, Arguments... arguments)
  {
    if (!function) {
      PyObject * init = PyObject_GetAttrString(module, "init");
      REQUIRE(init && PyCallable_Check(init));
      PyObject * result = PyObject_CallFunction(init, format, arguments ...);
      if (!result) {
        std::cout << traceback() << std::endl;
        return false;
      }
      Py_DECREF(result);
      Py_DECREF(init);
      function = PyObject_GetAttrString(module, name);
      REQUIRE(function && PyCallable_Check(function));
    }
    return true;
  }
};

Found detect(Script & script, const Image & image)
{
  Found found;
  Gil gil;
  if (!script.prepare("detect", "i", 0)) {
    return found;
  }
  std::vector<unsigned char> memory(image.data);
  npy_intp dims[2] = {image.height, image.width};
  PyObject * buffer = PyArray_SimpleNewFromData(2, dims, NPY_UBYTE, memory.data());
  PyObject * result = PyObject_CallFunctionObjArgs(script.function, buffer, nullptr);
  if (!result) {
    std::cout << traceback() << std::endl;
    Py_DECREF(buffer);
    return found;
  }
  REQUIRE(PyTuple_Check(result) && PyTuple_GET_SIZE(result) == 2);
  auto * keypoints = reinterpret_cast<PyArrayObject *>(PyTuple_GET_ITEM(result, 0));
  auto * descriptors = reinterpret_cast<PyArrayObject *>(PyTuple_GET_ITEM(result, 1));
  REQUIRE(PyArray_Check(keypoints) && PyArray_Check(descriptors));
  REQUIRE(PyArray_NDIM(keypoints) == 2 && PyArray_NDIM(descriptors) == 2);
  found.count = static_cast<int>(PyArray_SHAPE(keypoints)[0]);
  found.size = static_cast<int>(PyArray_SHAPE(descriptors)[1]);
  REQUIRE(PyArray_SHAPE(keypoints)[1] == 3 && PyArray_TYPE(keypoints) == NPY_FLOAT);
  REQUIRE(PyArray_SHAPE(descriptors)[0] == found.count && PyArray_TYPE(descriptors) == NPY_FLOAT && found.size > 0);
  const auto * values = reinterpret_cast<float *>(PyArray_DATA(keypoints));
  for (int i = 0; i < 3 * found.count; i += 3) {
    found.keypoints.insert(found.keypoints.end(), {values[i], values[i + 1]});
    found.scores.push_back(values[i + 2]);
  }
  values = reinterpret_cast<float *>(PyArray_DATA(descriptors));
  found.descriptors.assign(values, values + found.count * found.size);
  Py_DECREF(result);
  Py_DECREF(buffer);
  std::fill(memory.begin(), memory.end(), 0);
  return found;
}

std::vector<int> match(Script & script, const Found & from, const Found & to, const Image & image, const char * model)
{
  std::vector<int> matches;
  Gil gil;
  if (!script.prepare("match", "ifiis", from.size, 0.7f, 20, 0, model)) {
    return matches;
  }
  Found from_memory = from, to_memory = to;
  const auto array = [](std::vector<float> & memory, npy_intp rows, npy_intp columns) {
      npy_intp dims[2] = {rows, columns};
      return PyArray_SimpleNewFromData(columns ? 2 : 1, dims, NPY_FLOAT, memory.data());
    };
  PyObject * arguments[] = {
    array(from_memory.keypoints, from.count, 2), array(to_memory.keypoints, to.count, 2),
    array(from_memory.scores, from.count, 0), array(to_memory.scores, to.count, 0),
    array(from_memory.descriptors, from.count, from.size), array(to_memory.descriptors, to.count, to.size),
    PyLong_FromLong(image.width), PyLong_FromLong(image.height)};
  PyObject * result = PyObject_CallFunctionObjArgs(
    script.function, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5],
    arguments[6], arguments[7], nullptr);
  REQUIRE(result);
  auto * pairs = reinterpret_cast<PyArrayObject *>(result);
  REQUIRE(PyArray_Check(pairs) && PyArray_NDIM(pairs) == 2 && PyArray_SHAPE(pairs)[1] == 2);
  REQUIRE(PyArray_TYPE(pairs) == NPY_INT32);  // of the types that RTAB-Map takes; its UINT64 branch adds matches twice
  const auto * values = reinterpret_cast<int *>(PyArray_DATA(pairs));
  matches.assign(values, values + 2 * PyArray_SHAPE(pairs)[0]);
  Py_DECREF(result);
  for (PyObject * argument : arguments) {
    Py_DECREF(argument);
  }
  return matches;
}

Image read(const char * path)
{
  Image image;
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int deepest;
  file >> magic >> image.width >> image.height >> deepest;
  file.get();
  image.data.resize(image.width * image.height);
  file.read(reinterpret_cast<char *>(image.data.data()), image.data.size());
  REQUIRE(magic == "P5" && file);
  return image;
}

template<typename T>
void write(const std::string & path, const std::vector<T> & values)
{
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
}

int main(int, char ** argv)
{
  const std::string output = argv[5];
  const Image image0 = read(argv[3]), image1 = read(argv[4]);

  // pybind11::scoped_interpreter as PythonInterface makes it, with argc 0.
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.parse_argv = 0;
  config.install_signal_handlers = 1;
  REQUIRE(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
  PyConfig_Clear(&config);
  PyRun_SimpleString("import sys, threading\ndel sys.argv");
  REQUIRE(_import_array() == 0);
  PyThreadState * released = PyEval_SaveThread();

  {
    Script first(argv[1]), second(argv[1]);
    Found found0, found1, again;
    std::thread mapping([&] {found0 = detect(first, image0);});  // as Memory and RegistrationVis do, each with its own
    std::thread odometry([&] {found1 = detect(second, image1);});
    mapping.join();
    odometry.join();
    again = detect(second, image0);
    REQUIRE(again.keypoints == found0.keypoints && again.descriptors == found0.descriptors);
    write(output + "/keypoints0", found0.keypoints);
    write(output + "/scores0", found0.scores);
    write(output + "/descriptors0", found0.descriptors);
    write(output + "/keypoints1", found1.keypoints);

    Image blank = image0;
    std::fill(blank.data.begin(), blank.data.end(), 128);
    const Found nothing = detect(first, blank);
    REQUIRE(nothing.count == 0 && nothing.size == found0.size);

    Script matcher(argv[2]), unused(argv[2]);
    std::vector<int> matches;
    std::thread([&] {matches = match(matcher, found0, found1, image0, "indoor");}).join();
    write(output + "/matches", matches);
    REQUIRE(match(matcher, found0, nothing, image0, "indoor").empty());

    std::cout << "ERRORS" << std::endl;
    Image tiny;
    tiny.width = tiny.height = 8;
    tiny.data.resize(64);
    REQUIRE(detect(first, tiny).count == 0);
    Script wrong(argv[2]);
    REQUIRE(match(wrong, found0, found1, image0, "ni\xc3\xb1o.onnx").empty());
    REQUIRE(detect(first, image0).keypoints == found0.keypoints);  // the detector goes on
  }

  PyEval_RestoreThread(released);
  return Py_FinalizeEx();
}
