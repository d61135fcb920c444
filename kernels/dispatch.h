// Which implementation stands behind an op: checks come first, this last.
#pragma once

#include "kernels/cpu_kernels.h"
#include "kernels/linear_rows.h"

// SCD_ON(device, what CUDA does, what the CPU does). A build without CUDA never gets here with a matrix on CUDA: the
// checks of require.h refuse it.
#ifdef SCD_CUDA
#include "kernels/cuda_kernels.h"
#define SCD_ON(device, on_cuda, on_cpu) ((device) == ::scd::kernels::Device::kGpu ? (on_cuda) : (on_cpu))
#else
#define SCD_ON(device, on_cuda, on_cpu) (on_cpu)
#endif

// The same op of both namespaces.
#define SCD_DISPATCH(device, call) SCD_ON(device, cuda::call, cpu::call)
