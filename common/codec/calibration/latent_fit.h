// The closed-form fits of `scd` (arXiv:2606.07684, section "Reuse"): a latent shared by both models from the truncated
// SVD of [x_A  x_B], and the encoder that reaches it from x_A alone by ridge regression. Everything follows from the
// second moment of the joined rows, so nothing here sees a sample.
#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "common/codec/calibration/algebra.h"
#include "common/codec/dense_matrix.h"

namespace scd {

// `joined`: second moment [a + b, a + b] of rows [x_A  x_B]; `producer_dims` = a. Not centred, as published.
struct JoinedMoment {
  const Eigen::MatrixXd& sum;
  int64_t producer_dims = 0;
};

struct LatentFit {
  DenseMatrix encoder;  // W_enc transposed: [rank, a], rows by falling singular value
  DenseMatrix decoder;  // W_dec,B: [rank, b]
};

// SVD by the eigenvectors of the moment; z = x_A W_enc with W_enc = argmin ||X_A W - Z||^2 + lambda ||W||^2 and
// lambda = ridge * mean variance of x_A. rank <= a. Signs are fixed, so equal moments give equal maps.
LatentFit fit_shared_latent(const JoinedMoment& joined, int64_t rank, double ridge, const Algebra& algebra = {});

// Another consumer for an encoder that is fixed: D = argmin ||Z D - X_B||^2 + lambda ||D||^2 over codes z = x_A W_enc.
DenseMatrix fit_decoder(const JoinedMoment& joined, const DenseMatrix& encoder, double ridge,
                        const Algebra& algebra = {});

// E||x_B - x_A W_enc D||^2 / E||x_B||^2: 0 is perfect. Uses the first rows of both maps up to `rank` (0: all).
double relative_loss(const JoinedMoment& joined, const DenseMatrix& encoder, const DenseMatrix& decoder,
                     int64_t rank = 0);

}  // namespace scd
