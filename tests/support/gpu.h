// Tests that need a GPU skip aloud where none is.
#pragma once

#include <gtest/gtest.h>

#include "kernels/device.h"

#define SCD_SKIP_WITHOUT_GPU()                                                                     \
  do {                                                                                             \
    if (!kernels::gpu_device().usable) GTEST_SKIP() << "no GPU: " << kernels::gpu_device().reason; \
  } while (false)
