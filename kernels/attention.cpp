#include "kernels/attention.h"

#include "kernels/check_sequences.h"
#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {

void paged_attention(const AttentionArgs& args) {
  check_paged_kv(args.kv, "paged_attention");
  require_on(args.kv.device, args.queries, "the queries of paged_attention");
  require_on(args.kv.device, args.output, "the output of paged_attention");
  require(args.query_heads > 0 && args.query_heads % args.kv.kv_heads == 0, "paged_attention: ", args.query_heads,
          " query heads do not share ", args.kv.kv_heads, " KV heads evenly");
  require(args.queries.dtype == DType::kF32 && args.queries.columns == args.query_heads * args.kv.head_dim,
          "paged_attention: the queries ", args.queries, " must be F32 with ", args.query_heads, " heads of ",
          args.kv.head_dim);
  require(args.output.dtype != DType::kF16 && args.output.rows == args.queries.rows &&
              args.output.columns == args.queries.columns,
          "paged_attention: the output ", args.output, " must be F32 or BF16 in the shape of the queries ",
          args.queries);
  require(args.sliding_window >= 0, "paged_attention: a window of ", args.sliding_window);
  check_sequences(args.kv, args.sequences.host, args.queries.rows, "paged_attention");
  if (args.queries.rows > 0) SCD_DISPATCH(args.kv.device, paged_attention(args));
}

}  // namespace scd::kernels
