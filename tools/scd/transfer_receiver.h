// The other end of `scd bench transfer`: a process that receives messages and frees them.
//
// It prints its address, then obeys lines of its standard input: "receive REQUEST MESSAGES" opens a lease and answers
// "ready"; from then on "credit N" says that N more messages were freed.
#pragma once

#include "common/transport/options.h"

namespace scd {

struct TransferReceiverOptions {
  TransportOptions transport;
  // As in a decode server: another thread checks payload CRCs and frees the messages. Otherwise they are freed as they
  // land, which measures the transport alone.
  bool verify = false;
};

// Until its standard input ends.
void run_transfer_receiver(const TransferReceiverOptions& options);

}  // namespace scd
