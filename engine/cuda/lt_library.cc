#include "engine/cuda/lt_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

/// False when the library has no such function.
template <typename Function>
bool Load(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<LtFunctions> Open() {
  const std::string file = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  // Where the loader looks, and where NVIDIA's packages put it. It stays until the process ends.
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string reason = dlerror();
    library = dlopen(absl::StrCat("/usr/local/cuda/lib64/", file).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      return absl::UnimplementedError(absl::StrCat("cuBLASLt was not found: ", reason));
    }
  }
  LtFunctions f;
  const bool whole = Load(library, "cublasLtCreate", f.create) &&
                     Load(library, "cublasLtDestroy", f.destroy) &&
                     Load(library, "cublasLtMatmulDescCreate", f.desc_create) &&
                     Load(library, "cublasLtMatmulDescSetAttribute", f.desc_set) &&
                     Load(library, "cublasLtMatmulDescDestroy", f.desc_destroy) &&
                     Load(library, "cublasLtMatrixLayoutCreate", f.layout_create) &&
                     Load(library, "cublasLtMatrixLayoutDestroy", f.layout_destroy) &&
                     Load(library, "cublasLtMatmulPreferenceCreate", f.preference_create) &&
                     Load(library, "cublasLtMatmulPreferenceSetAttribute", f.preference_set) &&
                     Load(library, "cublasLtMatmulPreferenceDestroy", f.preference_destroy) &&
                     Load(library, "cublasLtMatmulAlgoGetHeuristic", f.heuristic) &&
                     Load(library, "cublasLtMatmul", f.matmul);
  if (!whole) return absl::UnimplementedError(absl::StrCat(file, ": ", dlerror()));
  return f;
}

}  // namespace

absl::StatusOr<const LtFunctions*> FindLt() {
  static const absl::StatusOr<LtFunctions> functions = Open();
  NG_RETURN_IF_ERROR(functions.status());
  return &*functions;
}

}  // namespace neurogrid
