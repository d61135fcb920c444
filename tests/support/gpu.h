// Tests that need a GPU skip aloud where none is.
#pragma once

#include <gtest/gtest.h>

#include "kernels/device.h"

#define SCD_SKIP_WITHOUT_GPU()                                                                       \
  do {                                                                                               \
    if (!kernels::cuda_device().usable) GTEST_SKIP() << "no GPU: " << kernels::cuda_device().reason; \
  } while (false)
