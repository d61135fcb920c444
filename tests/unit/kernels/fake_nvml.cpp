// A libnvidia-ml.so.1 with a GPU at every place but one, whose memory's highest clock cannot be read.
#include <string_view>

extern "C" {

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int code) { return code == 6 ? "Not Found" : "Not Supported"; }

int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** device) {
  static int only;
  if (std::string_view(bus_id) == "ffffffff:ff:1f.0") return 6;
  *device = &only;
  return 0;
}

int nvmlDeviceGetClockInfo(void*, int clock, unsigned* mhz) {
  *mhz = clock == 1 ? 1755 : 2619;
  return 0;
}

int nvmlDeviceGetMaxClockInfo(void*, int clock, unsigned* mhz) {
  if (clock == 2) return 3;
  *mhz = 1980;
  return 0;
}

}  // extern "C"
