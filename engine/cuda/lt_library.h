// cuBLASLt, found when it is first asked for: a machine without it runs everything else.
#pragma once

#include <cublasLt.h>

#include "common/status.h"

namespace neurogrid {

/// What we call of it, with its own signatures.
struct LtFunctions {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmul) matmul;
};

/// The library of the version that we were built with. Unimplemented, with the loader's reason,
/// where it is not.
absl::StatusOr<const LtFunctions*> FindLt();

}  // namespace neurogrid
