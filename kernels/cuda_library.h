// A shared library of the CUDA toolkit, opened when something first needs it: a program built with CUDA starts on
// machines without the toolkit.
#pragma once

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace scd::kernels::cuda {

class CudaLibrary {
 public:
  // "cublas", 13: libcublas.so.13. Throws std::runtime_error saying what to do where it is not found.
  CudaLibrary(const std::string& name, int version) : file_("lib" + name + ".so." + std::to_string(version)) {
    library_ = dlopen(file_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ != nullptr) return;
    throw std::runtime_error(file_ + " of the CUDA toolkit is needed and was not found (" + dlerror() +
                             "); install it or add its folder to LD_LIBRARY_PATH");
  }

  template <class F>
  void resolve(const char* name, F& function) const {
    function = reinterpret_cast<F>(dlsym(library_, name));
    if (function == nullptr) throw std::runtime_error(file_ + " has no " + name);
  }

 private:
  std::string file_;
  void* library_ = nullptr;
};

}  // namespace scd::kernels::cuda
