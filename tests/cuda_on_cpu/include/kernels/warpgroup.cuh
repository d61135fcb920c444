// Empty: a GPU of compute capability 8.0 never takes the kernels of Hopper's warpgroups.
#pragma once
